-- One of each kind of object that pg_dump writes, with names and values that are hard to read.
CREATE ROLE reader;
CREATE ROLE "odd role";
CREATE SCHEMA app AUTHORIZATION pacs;
CREATE SCHEMA "Od;d ""schema";
COMMENT ON SCHEMA app IS 'it''s a schema; really -- not a comment';
CREATE TYPE app.mood AS ENUM ('sad', 'it''s ok', 'hap;py', 'é');
CREATE TYPE app.pair AS (a integer, b text);
CREATE TYPE app.span AS RANGE (subtype = float8);
CREATE DOMAIN app.positive AS integer DEFAULT 1 CONSTRAINT over_zero CHECK (VALUE > 0);
COMMENT ON DOMAIN app.positive IS E'two\nlines; \\ and a backslash';
CREATE COLLATION app.plain FROM "C";
CREATE FUNCTION app.add(a integer, b integer DEFAULT 1) RETURNS integer LANGUAGE sql IMMUTABLE
    AS $_$ SELECT $1 + $2; -- ; ' "
    $_$;
CREATE FUNCTION app.stamp() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    -- $$ and 'quotes; and a fake end $bod$
    NEW.note := coalesce(NEW.note, '') || E'\t;';
    RETURN NEW;
END;
$body$;
CREATE PROCEDURE app.nothing() LANGUAGE plpgsql AS 'BEGIN PERFORM 1; END';
CREATE AGGREGATE app.total (integer) (SFUNC = app.add, STYPE = integer, INITCOND = '0');
CREATE OPERATOR app.@+ (FUNCTION = app.add, LEFTARG = integer, RIGHTARG = integer);
CREATE CAST (app.mood AS integer) WITH INOUT;
CREATE SEQUENCE app.counter START 7 INCREMENT 3 MINVALUE 2 MAXVALUE 1000 CYCLE;
SELECT nextval('app.counter');

CREATE TABLE app.parent (
    pk bigint GENERATED ALWAYS AS IDENTITY (START 5) PRIMARY KEY,
    code text COLLATE app.plain NOT NULL UNIQUE,
    amount app.positive,
    feeling app.mood DEFAULT 'hap;py',
    doubled integer GENERATED ALWAYS AS (amount * 2) STORED,
    duo app.pair,
    during tsrange,
    f4 real, f8 double precision, n numeric(20, 5), b bytea, j jsonb, x xml, ts timestamptz, iv interval,
    list text[], bits bit(5), addr inet,
    CONSTRAINT named CHECK (length(code) < 300 AND code <> ';'),
    CONSTRAINT no_overlap EXCLUDE USING gist (during WITH &&)
) WITH (fillfactor = 90);
COMMENT ON TABLE app.parent IS 'COPY app.parent FROM stdin;';
COMMENT ON COLUMN app.parent.code IS '\. and \connect';
COMMENT ON CONSTRAINT named ON app.parent IS 'a check';
COMMENT ON CONSTRAINT no_overlap ON app.parent IS 'an exclusion';
INSERT INTO app.parent (code, amount, duo, during, f4, f8, n, b, j, x, ts, iv, list, bits, addr)
SELECT 'c' || i, i, ROW(i, E'a\tb\\')::app.pair,
    tsrange(timestamp '2000-01-01' + i * interval '1 day', timestamp '2000-01-01 01:00' + i * interval '1 day'),
    i / 3.0, i / 7.0, i / 11.0, decode(md5(i::text), 'hex'), ('{"k": "a\\n' || i || '"}')::jsonb,
    '<a>;</a>', timestamptz '2020-02-02' + i * interval '1 hour', i * interval '1 minute',
    ARRAY['a', NULL, '\.', '{x}'], B'10101', '10.0.0.1'
FROM generate_series(1, 500) i;
CREATE TABLE app.child (
    id serial PRIMARY KEY,
    parent_fk bigint REFERENCES app.parent (pk) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    self_fk integer REFERENCES app.child (id),
    note text
);
INSERT INTO app.child (parent_fk, self_fk, note)
SELECT 5 + i % 100, CASE WHEN i > 10 THEN i - 10 END,
    CASE i % 7 WHEN 0 THEN '' WHEN 1 THEN '\.' WHEN 2 THEN E'line\nline\r\n\\.\n' WHEN 3 THEN '\N'
        WHEN 4 THEN E'--\t;' WHEN 5 THEN 'é ü ß' END
FROM generate_series(1, 300) i;
CREATE TABLE "Od;d ""schema"."tab;le ""x" ("col ""umn;" text, "select" integer DEFAULT 3, "é" text);
INSERT INTO "Od;d ""schema"."tab;le ""x" VALUES (NULL, 1, 'ü'), ('', 2, NULL), ('\.', 3, E'\\'), ('a', 4, '\');
CREATE INDEX "in;dex ""x" ON "Od;d ""schema"."tab;le ""x" ("col ""umn;" DESC NULLS LAST) WHERE "select" > 1;
COMMENT ON INDEX "Od;d ""schema"."in;dex ""x" IS 'an index; of sorts';
CREATE TABLE app.empty_one ();
CREATE UNLOGGED TABLE app.unlogged (a integer PRIMARY KEY);
INSERT INTO app.unlogged VALUES (1), (2);
CREATE TABLE app.inherited (extra text DEFAULT 'x') INHERITS (app.child);
INSERT INTO app.inherited (id, note) VALUES (1000, 'of the child table');

CREATE TABLE app.event (id integer NOT NULL, at date NOT NULL, kind text) PARTITION BY RANGE (at);
CREATE TABLE app.event_2019 PARTITION OF app.event FOR VALUES FROM ('2019-01-01') TO ('2020-01-01');
CREATE TABLE app.event_2020 PARTITION OF app.event FOR VALUES FROM ('2020-01-01') TO ('2021-01-01') PARTITION BY LIST (kind);
CREATE TABLE app.event_2020_a PARTITION OF app.event_2020 FOR VALUES IN ('a');
CREATE TABLE app.event_rest PARTITION OF app.event_2020 DEFAULT;
INSERT INTO app.event SELECT i, date '2019-01-01' + i, CASE WHEN i % 3 = 0 THEN 'a' ELSE 'b' END FROM generate_series(1, 700) i;
ALTER TABLE app.event ADD PRIMARY KEY (id, at, kind);
CREATE INDEX event_kind ON app.event (kind);
CREATE TABLE app.follow (id integer, at date, kind text, FOREIGN KEY (id, at, kind) REFERENCES app.event);
INSERT INTO app.follow SELECT * FROM app.event WHERE id < 50;

CREATE VIEW app.overview AS SELECT p.code, count(c.id) AS children, 'a;b'::text AS semi FROM app.parent p LEFT JOIN app.child c ON c.parent_fk = p.pk GROUP BY p.code;
-- A view whose primary key stands in for its GROUP BY can only be made when the key is there.
CREATE VIEW app.by_key AS SELECT p.pk, p.code, count(*) FROM app.parent p JOIN app.child c ON c.parent_fk = p.pk GROUP BY p.pk;
CREATE MATERIALIZED VIEW app.summary AS SELECT feeling, sum(amount) AS total FROM app.parent GROUP BY feeling;
CREATE UNIQUE INDEX summary_key ON app.summary (feeling);
CREATE MATERIALIZED VIEW app.of_summary AS SELECT count(*) FROM app.summary WITH NO DATA;
CREATE RULE keep AS ON DELETE TO app.unlogged DO INSTEAD (UPDATE app.unlogged SET a = a; SELECT 1);
CREATE TRIGGER stamped BEFORE INSERT OR UPDATE ON app.child FOR EACH ROW WHEN (NEW.note <> ';') EXECUTE FUNCTION app.stamp();
COMMENT ON TRIGGER stamped ON app.child IS 'after the data';
CREATE STATISTICS app.related (dependencies) ON id, kind FROM app.event_2019;
ALTER TABLE app.child CLUSTER ON child_pkey;
ALTER TABLE app.unlogged REPLICA IDENTITY USING INDEX unlogged_pkey;
ALTER TABLE app.parent ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON app.parent FOR SELECT TO reader USING (code = 'c1');
ALTER TABLE app.parent ADD CONSTRAINT late CHECK (amount < 0) NOT VALID;
CREATE INDEX parent_expr ON app.parent ((lower(code)), (amount + 1));
ALTER INDEX app.parent_expr ALTER COLUMN 2 SET STATISTICS 500;
CREATE INDEX parent_json ON app.parent USING gin (j);
CREATE TEXT SEARCH CONFIGURATION app.search (COPY = simple);
CREATE PUBLICATION pub FOR TABLE app.parent;
CREATE FUNCTION app.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE EVENT TRIGGER ddl ON ddl_command_start EXECUTE FUNCTION app.on_ddl();
ALTER EVENT TRIGGER ddl DISABLE;
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER nowhere OPTIONS (host 'a;b');
CREATE FOREIGN TABLE app.foreign_one (a integer) SERVER elsewhere;
GRANT USAGE ON SCHEMA app TO reader;
GRANT SELECT, INSERT ON app.parent TO reader WITH GRANT OPTION;
GRANT SELECT (code) ON app.parent TO "odd role";
GRANT EXECUTE ON FUNCTION app.add(integer, integer) TO reader;
REVOKE ALL ON FUNCTION app.on_ddl() FROM PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO reader;
ALTER TABLE app.unlogged OWNER TO "odd role";

SELECT lo_from_bytea(4001, decode(repeat('00ff5c27', 20000), 'hex'));
SELECT lo_from_bytea(4002, '');
COMMENT ON LARGE OBJECT 4001 IS 'a large one; ''quoted''';
GRANT SELECT ON LARGE OBJECT 4001 TO reader;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'hstore') THEN
        CREATE EXTENSION hstore WITH SCHEMA app;
        CREATE TABLE app.stored AS SELECT 'a=>1'::app.hstore AS h;
    END IF;
    -- A body of statements (14 and on) has semicolons of its own.
    IF current_setting('server_version_num')::int >= 140000 THEN
        EXECUTE 'CREATE FUNCTION app.body() RETURNS integer BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END';
    END IF;
END $$;

-- Large enough to be cut over connections, and one that is loaded whole into a new file.
CREATE TABLE app.large (pk bigint PRIMARY KEY, t text, b bytea);
INSERT INTO app.large SELECT i, repeat(CASE WHEN i % 3 = 0 THEN '\' ELSE 'x;' END, 100), decode(repeat(md5(i::text), 4), 'hex')
FROM generate_series(1, 60000) i;
CREATE INDEX large_t ON app.large (md5(t));
CREATE TABLE app.middle (pk bigint PRIMARY KEY, large_fk bigint REFERENCES app.large, t text);
INSERT INTO app.middle SELECT i, i, repeat('y', 150) FROM generate_series(1, 15000) i;

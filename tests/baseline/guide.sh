#!/bin/bash
# The database steps of Kaapana's migration guide 0.2 -> 0.3, done by hand with docker, pg_dump and psql:
# the peer of the benches. It is the guide made correct, not the guide to the letter: FAST_DATA_DIR holds the
# database, nothing is created before a restore, dumps come without a terminal, the first SQL error ends it,
# and the second dump is restored before the directories are swapped.
#
# Variables: FAST_DATA_DIR BACKUP_DIR OLD_IMAGE NEW_IMAGE (`lab site create` prints them);
#            CONTENT=1: also read every row where the agent does, as one would with psql, sort and sha256sum;
#            SQL_DIR: a folder with the update scripts, when they are not to come from the image's /sql.
# Prints one line a step, `SECONDS<TAB>STEP`, and `total` last. Ends with 0 only when all of it is done.
set -eu -o pipefail

: "${FAST_DATA_DIR:?}" "${BACKUP_DIR:?}" "${OLD_IMAGE:?}" "${NEW_IMAGE:?}"
DB=pacsdb DB_USER=pacs
export POSTGRES_DB=$DB POSTGRES_USER=$DB_USER POSTGRES_PASSWORD=pacs

live=$FAST_DATA_DIR/postgres-dcm4che
work=$FAST_DATA_DIR/postgres-dcm4che9.6
fresh=$FAST_DATA_DIR/postgres-dcm4che-new
container=kaapana-baseline-$$
empty=$(mktemp -d)
trap 'docker rm -f -v "$container" >/dev/null 2>&1 || true; rmdir "$empty"' EXIT

started=$EPOCHREALTIME
step() {
    local name=$1 from=$EPOCHREALTIME
    shift
    "$@"
    seconds "$from" "$name"
}
seconds() { awk -v a="$1" -v b="$EPOCHREALTIME" -v name="$2" 'BEGIN { printf "%.2f\t%s\n", b - a, name }'; }

# start IMAGE DIRECTORY [WITHOUT_SCHEMA]: returns when the real server answers, which is the one on TCP.
start() {
    local mounts=(--mount "type=bind,source=$2,target=/var/lib/postgresql/data")
    [ -z "${3-}" ] || mounts+=(--mount "type=bind,source=$empty,target=/docker-entrypoint-initdb.d,readonly")
    [ -z "${SQL_DIR-}" ] || mounts+=(--mount "type=bind,source=$SQL_DIR,target=/sql,readonly")
    docker run -d --name "$container" --label kaapana-lab=1 --label "kaapana-lab.owner=$(owner)" \
        -p 127.0.0.1::5432 -e POSTGRES_DB -e POSTGRES_USER -e POSTGRES_PASSWORD "${mounts[@]}" "$1" >/dev/null
    docker exec "$container" timeout 180 sh -c 'until pg_isready -q -h 127.0.0.1; do sleep 0.02; done'
}
owner() { echo "$$-$(sed 's/.*) //' /proc/$$/stat | cut -d' ' -f20)"; }
stop() {
    docker stop -t 300 "$container" >/dev/null
    docker rm -v "$container" >/dev/null
}
sql() { docker exec "$container" psql -X -q -A -t -v ON_ERROR_STOP=1 -U $DB_USER -d $DB "$@"; }
counts() { sql -c 'select count(series_iuid) from series' -c 'select count(sop_iuid) from instance' | paste -sd' '; }
# A SHA-256 of every table's rows, all tables in one session.
content() {
    [ -n "${CONTENT-}" ] || return 0
    docker exec -i "$container" sh -c "psql -X -q -A -t -U $DB_USER -d $DB -f - |
        psql -X -q -A -t -v ON_ERROR_STOP=1 -U $DB_USER -d $DB -f -" >/dev/null <<'SQL'
select format('\copy %I.%I to program ''LC_ALL=C sort | sha256sum''', schemaname, tablename)
from pg_tables where schemaname = 'public' order by tablename;
SQL
}
expect_counts() {
    local found
    found=$(counts)
    [ "$found" = "$1" ] || { echo "expected series and instances: $1, found: $found" >&2; return 1; }
}
dump() {
    docker exec "$container" pg_dump -U $DB_USER -d $DB >"$1"
    tail -c 200 "$1" | grep -q '^-- PostgreSQL database dump complete'
}
restore() {
    docker cp -q "$1" "$container:/restore.sql" 2>/dev/null || docker cp "$1" "$container:/restore.sql" >/dev/null
    sql -1 -f /restore.sql >/dev/null
}
update() {
    local version
    for version in 5.27 5.28 5.29 5.30 5.31 5.31.1 5.32; do
        step "  update-$version" sql -1 -f "/sql/update-$version-psql.sql"
    done
}
swap() {
    [ ! -e "$live-old" ]
    mv -nT "$live" "$live-old"
    mv -nT "$fresh" "$live"
}

[ -s "$live/PG_VERSION" ]
mkdir "$work" "$fresh"
step 'start the old database' start "$OLD_IMAGE" "$live"
before=''
count_before() { before=$(counts); }
step 'count' count_before
step 'content' content
step 'dump 1' dump "$BACKUP_DIR/pacsdb_old.sql"
step 'stop the old database' stop
step 'start the work database' start "$OLD_IMAGE" "$work" without-schema
step 'restore 1' restore "$BACKUP_DIR/pacsdb_old.sql"
step 'count again' expect_counts "$before"
step 'content again' content
step 'update scripts' update
step 'content after the updates' content
step 'dump 2' dump "$BACKUP_DIR/pacsdb_updated.sql"
step 'stop the work database' stop
step 'start the new database' start "$NEW_IMAGE" "$fresh" without-schema
step 'restore 2' restore "$BACKUP_DIR/pacsdb_updated.sql"
step 'count at the end' expect_counts "$before"
step 'content at the end' content
step 'stop the new database' stop
step 'swap the directories' swap
step 'remove the work database' rm -rf "$work"
seconds "$started" total

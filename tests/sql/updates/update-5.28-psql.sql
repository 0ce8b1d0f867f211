-- Stand-in for the 5.27 -> 5.28 update: a table of named values.

create table key_value (
    pk           bigint        primary key,
    key          varchar(255)  not null constraint uk_key_value_key unique,
    value        varchar(4000) not null,
    content_type varchar(255)  not null,
    username     varchar(255),
    created_time timestamp     not null,
    updated_time timestamp     not null
);
create sequence key_value_pk_seq;
create index ix_key_value_username on key_value (username);
create index ix_key_value_updated_time on key_value (updated_time);

-- Counts: run twice, it adds twice, and after 5.29 no statement of this file fails any more.
update id_sequence set next_value = next_value + 1, version = version + 1;

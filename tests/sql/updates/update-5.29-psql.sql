-- Stand-in for the 5.28 -> 5.29 update: the table of named values, without reserved words.

-- while 5.28 runs
create table key_value2 (
    pk           bigint        primary key,
    key_name     varchar(255)  not null constraint uk_key_value2_key_name unique,
    key_value    varchar(4000) not null,
    content_type varchar(255)  not null,
    username     varchar(255),
    created_time timestamp     not null,
    updated_time timestamp     not null
);
create sequence key_value2_pk_seq;
create index ix_key_value2_username on key_value2 (username);
create index ix_key_value2_updated_time on key_value2 (updated_time);

-- while 5.29 runs
drop sequence key_value_pk_seq;
drop table key_value;

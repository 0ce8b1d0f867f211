-- Stand-in for the 5.26 -> 5.27 update: requests per instance, modification time per series.

-- while 5.26 runs
create table instance_req (
    pk                    bigint       primary key,
    instance_fk           bigint,
    accession_no          varchar(255) not null,
    accno_entity_id       varchar(255),
    accno_entity_uid      varchar(255),
    accno_entity_uid_type varchar(255),
    study_iuid            varchar(255) not null,
    sps_id                varchar(255) not null,
    req_proc_id           varchar(255) not null,
    req_service           varchar(255) not null,
    req_phys_name_fk      bigint,
    constraint fk_instance_req_instance_fk foreign key (instance_fk) references instance (pk),
    constraint fk_instance_req_req_phys_name_fk foreign key (req_phys_name_fk) references person_name (pk)
);
create sequence instance_req_pk_seq;
create index ix_instance_req_instance_fk on instance_req (instance_fk);
create index ix_instance_req_req_phys_name_fk on instance_req (req_phys_name_fk);
create index ix_instance_req_accession_no on instance_req (accession_no);
create index ix_instance_req_study_iuid on instance_req (study_iuid);
create index ix_instance_req_sps_id on instance_req (sps_id);
create index ix_instance_req_req_proc_id on instance_req (req_proc_id);
create index ix_instance_req_req_service on instance_req (req_service);

alter table hl7psu_task add column accession_no varchar(255);
alter table series add column modified_time timestamp;

-- Unconditional on purpose: a second run overwrites what was modified in between.
update series set modified_time = updated_time;

-- between 5.26 and 5.27
update series set modified_time = updated_time where modified_time is null;

-- while 5.27 runs
alter table series alter column modified_time set not null;

-- Turns a filled 5.26 database into one that looks like 5.25, where the seven scripts would run through
-- without an error all the same and leave a wrong schema behind. For tests that expect a refusal.
create table issuer (
    pk              bigint primary key,
    entity_id       varchar(255),
    entity_uid      varchar(255),
    entity_uid_type varchar(255)
);
create sequence issuer_pk_seq;
alter table series drop column receiving_hl7_app, drop column receiving_hl7_facility,
    drop column sending_hl7_app, drop column sending_hl7_facility;
alter table mpps drop column accno_entity_id, drop column accno_entity_uid, drop column accno_entity_uid_type,
    add column accno_issuer_fk bigint references issuer (pk);
alter table mwl_item drop column accno_entity_id, drop column accno_entity_uid, drop column accno_entity_uid_type,
    drop column admid_entity_id, drop column admid_entity_uid, drop column admid_entity_uid_type,
    add column accno_issuer_fk bigint references issuer (pk), add column admid_issuer_fk bigint references issuer (pk);
alter table patient_id drop column entity_id, drop column entity_uid, drop column entity_uid_type,
    add column issuer_fk bigint references issuer (pk);
alter table series_req drop column accno_entity_id, drop column accno_entity_uid, drop column accno_entity_uid_type,
    add column accno_issuer_fk bigint references issuer (pk);
alter table study drop column accno_entity_id, drop column accno_entity_uid, drop column accno_entity_uid_type,
    drop column admid_entity_id, drop column admid_entity_uid, drop column admid_entity_uid_type,
    add column accno_issuer_fk bigint references issuer (pk), add column admid_issuer_fk bigint references issuer (pk);
alter table ups drop column admid_entity_id, drop column admid_entity_uid, drop column admid_entity_uid_type,
    add column admission_issuer_fk bigint references issuer (pk);
alter table ups_req drop column accno_entity_id, drop column accno_entity_uid, drop column accno_entity_uid_type,
    add column accno_issuer_fk bigint references issuer (pk);
alter table hl7psu_task drop constraint uk_hl7psu_task_study_iuid_pps_status;
alter table hl7psu_task drop column pps_status;
drop table rel_ups_station_class_code, rel_ups_station_location_code, rel_ups_station_name_code;

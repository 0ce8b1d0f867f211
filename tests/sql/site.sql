-- Fills a 5.26 database with a hospital that does not exist. Read by psql, which knows
--   :instances  number of DICOM instances          :file_step  every how many-th of them has a file
-- Set-based and deterministic: the same numbers give the same rows. No SQL newer than 9.6. Keys and
-- indexes come afterwards, which is several times faster.
--
-- What it takes care to contain: UTF-8 in several scripts, empty strings beside NULLs, backslashes, tabs,
-- newlines and COPY's own marks (\N, \.) inside values, strings of the full 255 characters, zero bytes in
-- bytea, identifiers that no patient refers to, merged patients and patients without an identifier.

\set patients  ':instances / 400 + 20'
\set studies   ':instances / 100 + 20'
\set series    ':instances / 20 + 20'
\set orphans   'greatest((:instances / 400 + 20) / 49, 2)'
\set requests  ':instances / 400 + 20'
\set tasks     ':instances / 50 + 10'

-- Primary keys of dicomattrs, which all levels share: patients first, then studies, series, requests …
\set attrs_study     '(:patients)'
\set attrs_series    '(:patients) + (:studies)'
\set attrs_instance  '(:patients) + (:studies) + (:series)'
\set attrs_request   '(:patients) + (:studies) + (:series) + :instances'
\set attrs_mpps      '(:patients) + (:studies) + (:series) + :instances + (:requests)'
\set attrs_rest      '(:patients) + (:studies) + (:series) + :instances + 2 * (:requests)'

set client_encoding = 'UTF8';
set client_min_messages = warning;

-- A UID of 64 characters, the longest there is.
create function pg_temp.uid(kind int, number bigint) returns text language sql immutable as $$
    select '1.2.826.0.1.3680043.10.1511.' || kind || '.1' || lpad(number::text, 9, '0')
        || substr(translate(md5(kind || ':' || number), 'abcdef', '123456'), 1, 24)
$$;

-- The moment at which the archive stored the object with this number.
create function pg_temp.moment(number bigint) returns timestamp language sql immutable as $$
    select timestamp '2019-01-07 08:00:00.123456' + number * interval '61.234567 seconds'
$$;

create function pg_temp.pick(list text[], number bigint) returns text language sql immutable as $$
    select list[1 + number % array_length(list, 1)]
$$;

create function pg_temp.family_name(number bigint) returns text language sql immutable as $$
    select pg_temp.pick(array['Müller^Jürgen', 'Doe^John', 'Ångström^Åsa^^Dr.', 'O''Neil^Siobhán', 'Παπαδόπουλος^Νίκος',
        'Yamada^Tarou', 'Łukasiewicz^Żaneta', 'Back\Slash^Tes\t', '\N^\.', 'Иванова^Ольга', 'Emoji^😀', 'Nguyễn^Thị Hương'],
        number) || '^' || number
$$;

create function pg_temp.description(number bigint) returns text language sql immutable as $$
    select pg_temp.pick(array['CT Thorax nativ', 'MR Schädel mit KM', '', 'Abdomen/Becken 5 mm', E'tab\there', E'two\nlines',
        E'CR LF\r\nend', 'C:\dicom\new', '\N', '\.', 'quoted "text", semi;colon', 'it''s', 'Verlaufskontrolle',
        repeat('ü', 255), '头部 CT', ' leading and trailing ', 'T1 mprage sag p2 iso', '$1 %s {{ braces }}', 'null', E'\b\f\v'],
        number)
$$;

-- An attribute set as the archive stores it: a fixed part, some texts, some binary.
create function pg_temp.attributes(kind text, number bigint, iuid text) returns bytea language sql immutable as $$
    select '\x0800050043530a0049534f5f495220313932000a0d5c00ff'::bytea
        || convert_to(kind || ' ORIGINAL\PRIMARY\AXIAL\CT_SOM5 SPI ' || iuid
            || ' Synthetic Scanner XT 128 VA44A_SP2A 0.9765625\0.9765625 1\0\0\0\1\0 -249.51171875\-416.51171875\-'
            || number || '.5 120 HELICAL 512\512 16\16\12\11 Kaapana lab, not a real examination; standard kernel B31f', 'UTF8')
        || decode(md5(kind || number) || md5(number || iuid) || md5(iuid || kind) || md5('a' || number) || md5('b' || iuid), 'hex')
$$;

-- One element of a DICOM file in explicit VR little endian, for the kinds with a two-byte length.
create function pg_temp.element(tag text, vr text, value text) returns bytea language sql immutable as $$
    select decode(tag, 'hex') || convert_to(vr, 'UTF8')
        || decode(lpad(to_hex((octet_length(value) + octet_length(value) % 2) % 256), 2, '0')
            || lpad(to_hex((octet_length(value) + octet_length(value) % 2) / 256), 2, '0'), 'hex')
        || convert_to(value, 'UTF8')
        || case when octet_length(value) % 2 = 0 then ''::bytea when vr = 'UI' then '\x00'::bytea else '\x20'::bytea end
$$;

-- A file's group 0002 behind its own length, and the whole file.
create function pg_temp.file_meta(class text, iuid text) returns bytea language sql immutable as $$
    select decode('020001004f420000020000000001', 'hex')
        || pg_temp.element('02000200', 'UI', class)
        || pg_temp.element('02000300', 'UI', iuid)
        || pg_temp.element('02001000', 'UI', '1.2.840.10008.1.2.1')
        || pg_temp.element('02001200', 'UI', '1.2.826.0.1.3680043.10.1511.1')
$$;
create function pg_temp.dicom_file(meta bytea, data bytea) returns bytea language sql immutable as $$
    select decode(repeat('00', 128), 'hex') || 'DICM'::bytea || decode('02000000554c0400', 'hex')
        || decode(lpad(to_hex(length(meta) % 256), 2, '0') || lpad(to_hex(length(meta) / 256), 2, '0') || '0000', 'hex')
        || meta || data
$$;

create temp table study_plan as
select n as pk,
       pg_temp.uid(1, n) as iuid,
       1 + (n * 7) % (:patients) as patient,
       pg_temp.moment(n * :instances / (:studies)) as stored,
       case n % 9 when 0 then 'SR' when 1 then 'MR' when 2 then 'MR' else 'CT' end as modality
from generate_series(1, (:studies)::bigint) n;

create temp table series_plan as
select n as pk, pg_temp.uid(2, n) as iuid, study.pk as study, study.patient, study.iuid as study_iuid, study.stored, study.modality,
       case study.modality when 'CT' then '1.2.840.10008.5.1.4.1.1.2' when 'MR' then '1.2.840.10008.5.1.4.1.1.4'
           else '1.2.840.10008.5.1.4.1.1.88.11' end as class
from generate_series(1, (:series)::bigint) n
join study_plan study on study.pk = 1 + (n - 1) * (:studies) / (:series);

create temp table instance_plan as
select n as pk, pg_temp.uid(3, n) as iuid, series.pk as series, series.class, pg_temp.moment(n) as stored,
       to_char(series.stored, 'YYYY/MM/DD') || '/' || upper(substr(md5(series.study_iuid), 1, 8)) || '/'
           || upper(substr(md5(series.iuid), 1, 8)) || '/' || upper(substr(md5('i' || n), 1, 8)) as path
from generate_series(1, :instances::bigint) n
join series_plan series on series.pk = 1 + (n - 1) * (:series) / :instances;

create temp table file_plan as
select instance.pk, instance.path,
       pg_temp.dicom_file(
           pg_temp.file_meta(instance.class, instance.iuid),
           pg_temp.element('08000500', 'CS', 'ISO_IR 192')
           || pg_temp.element('08001600', 'UI', instance.class)
           || pg_temp.element('08001800', 'UI', instance.iuid)
           || pg_temp.element('08006000', 'CS', series.modality)
           || pg_temp.element('10001000', 'PN', pg_temp.family_name(series.patient))
           || pg_temp.element('10002000', 'LO', 'LAB' || lpad(series.patient::text, 7, '0'))
           || pg_temp.element('20000d00', 'UI', series.study_iuid)
           || pg_temp.element('20000e00', 'UI', series.iuid)
           || pg_temp.element('20001300', 'IS', instance.pk::text)) as content
from instance_plan instance
join series_plan series on series.pk = instance.series
where instance.pk % :file_step = 0;
create index on file_plan (pk);
analyze study_plan; analyze series_plan; analyze instance_plan; analyze file_plan;

insert into code
select n, pg_temp.pick(array['Brain', 'Lung', 'Größe', 'Befund', E'tab\tbed'], n), 'T-' || (10000 + n), 'SRT', ''
from generate_series(1, 24) n;

-- Person names: of patients, then of referring physicians, one a study, then of those who did the work.
insert into person_name
select n, pg_temp.family_name(n),
       case when n % 12 = 5 then '山田^太郎^' || n else '*' end,
       case when n % 12 = 5 then 'やまだ^たろう' when n % 2 = 0 then '' else '*' end
from generate_series(1, (:patients) + (:studies) + (:requests)) n;

insert into soundex_code
select 2 * n - 1 + part, upper(substr(md5('soundex' || n || part), 1, 4)), 0, part, n
from generate_series(1, (:patients)) n, generate_series(0, 1) part;

insert into dicomattrs
select n, pg_temp.attributes('patient', n, '') from generate_series(1, (:patients)) n
union all
select (:attrs_study) + pk, pg_temp.attributes('study', pk, iuid) from study_plan
union all
select (:attrs_series) + pk, pg_temp.attributes('series', pk, iuid) || pg_temp.attributes('equipment', pk, study_iuid)
from series_plan;
insert into dicomattrs
select (:attrs_instance) + pk, pg_temp.attributes('instance', pk, iuid) from instance_plan;
insert into dicomattrs
select (:attrs_request) + n, pg_temp.attributes('request', n, '') from generate_series(1, 2 * (:requests) + 40) n;

-- Every seventeenth patient has no identifier, and some identifiers have no patient.
insert into patient_id (pk, pat_id, pat_id_type_code, entity_id, entity_uid, entity_uid_type, version)
select n, 'LAB' || lpad(n::text, 7, '0'), case when n % 5 = 0 then 'PI' end,
       case when n % 3 = 0 then 'Klinik Süd' when n % 3 = 1 then '' end,
       case when n % 4 = 0 then '1.2.826.0.1.3680043.10.1511.9' end, case when n % 4 = 0 then 'ISO' end, n % 3
from generate_series(1, (:patients) + (:orphans)) n
where n % 17 <> 0 or n > (:patients);

insert into patient (pk, created_time, failed_verifications, num_studies, pat_birthdate, pat_custom1, pat_custom2, pat_custom3,
    pat_sex, updated_time, verification_status, verification_time, version, dicomattrs_fk, merge_fk, patient_id_fk, pat_name_fk,
    resp_person_fk)
select n, pg_temp.moment(n), n % 2, (select count(*) from study_plan where patient = n),
       case when n % 11 = 0 then '*' else to_char(date '1930-01-01' + (n * 97 % 30000)::int, 'YYYYMMDD') end,
       '*', pg_temp.description(n), '', pg_temp.pick(array['F', 'M', 'O', '*'], n), pg_temp.moment(2 * n), n % 5,
       case when n % 5 > 0 then pg_temp.moment(3 * n) end, n % 7, n,
       case when n % 19 = 0 then n - 1 end, case when n % 17 <> 0 then n end, n, null
from generate_series(1, (:patients)) n;

insert into study (pk, access_control_id, access_time, accession_no, accno_entity_id, admission_id, admid_entity_id, completeness,
    created_time, expiration_date, expiration_state, ext_retrieve_aet, failed_retrieves, modified_time, rejection_state, study_size,
    storage_ids, study_custom1, study_custom2, study_custom3, study_date, study_desc, study_id, study_iuid, study_time,
    updated_time, version, dicomattrs_fk, patient_fk, ref_phys_name_fk)
select pk, '*', stored + interval '1 hour', 'ACC' || pk, case when pk % 2 = 0 then 'RIS' end, '*', null, pk % 3, stored,
       case when pk % 10 = 0 then '20391231' end, 0, '*', 0, stored + interval '1 minute', 0, -1, 'fs1', '*', '*',
       pg_temp.description(pk * 3), to_char(stored, 'YYYYMMDD'), pg_temp.description(pk), 'S' || pk, iuid,
       to_char(stored, 'HH24MISS.US'), stored + interval '2 minutes', pk % 4, (:attrs_study) + pk, patient, (:patients) + pk
from study_plan;

insert into study_query_attrs (pk, availability, mods_in_study, num_instances, num_series, retrieve_aets, cuids_in_study, view_id,
    study_fk)
select pk, 0, modality, 100, 5, 'KAAPANA', '1.2.840.10008.5.1.4.1.1.2', case when pk % 50 = 0 then 'hideRejected' else 'hideQuality' end, pk
from study_plan;
insert into rel_study_pcode select pk, 1 + pk % 24 from study_plan;

insert into metadata
select pk, stored, md5('metadata' || pk), 4096 + pk % 1000, 0, 'metadata',
       'series/' || upper(substr(md5(iuid), 1, 8)) || '/' || pk || '.zip'
from series_plan;

insert into series (pk, body_part, completeness, compress_failures, created_time, expiration_state, ext_retrieve_aet,
    failed_retrieves, stgver_failures, inst_purge_state, institution, department, laterality, metadata_update_time,
    metadata_update_failures, modality, pps_cuid, pps_iuid, pps_start_date, pps_start_time, receiving_aet, receiving_hl7_app,
    rejection_state, sending_aet, sending_hl7_app, sending_pres_addr, series_custom1, series_custom2, series_custom3, series_desc,
    series_iuid, series_no, series_size, sop_cuid, station_name, stgver_time, tsuid, updated_time, version, dicomattrs_fk,
    inst_code_fk, metadata_fk, perf_phys_name_fk, study_fk)
select pk, pg_temp.pick(array['CHEST', 'HEAD', '*', 'ABDOMEN'], pk), pk % 3, 0, stored, 0,
       case when pk % 20 = 0 then 'FERNARCHIV' end, 0, 0, 0, pg_temp.pick(array['Klinik Süd', '*', 'Hôpital Général', 'St. Mary''s'], pk),
       '*', pg_temp.pick(array['*', 'L', 'R', ''], pk), stored + interval '3 hours', 0, modality, '*', '*', '*', '*', 'KAAPANA',
       case when pk % 3 = 0 then 'DCM4CHEE' end, 0, 'CT' || pk % 9, case when pk % 3 = 0 then '' end,
       case when pk % 2 = 0 then '10.1.2.' || pk % 250 || ':104' end, '*', pg_temp.description(pk * 7), '*', pg_temp.description(pk),
       iuid, case when pk % 13 > 0 then pk % 20 end, 524288 * 20, class, 'STATION_' || pk % 12,
       case when pk % 4 = 0 then stored + interval '1 day' end, '1.2.840.10008.1.2.1', stored + pk * interval '0.000017 seconds', pk % 6,
       (:attrs_series) + pk, case when pk % 8 = 0 then 1 + pk % 24 end, pk, null, study
from series_plan;

insert into series_query_attrs (pk, availability, num_instances, retrieve_aets, cuids_in_series, view_id, series_fk)
select pk, 0, 20, 'KAAPANA', class, 'hideRejected', pk from series_plan;
insert into series_req (pk, accession_no, accno_entity_id, req_proc_id, req_service, sps_id, study_iuid, series_fk)
select pk, 'ACC' || study, case when pk % 2 = 0 then 'RIS' end, 'RP' || pk, '*', 'SPS' || pk, study_iuid, pk from series_plan;

insert into instance (pk, availability, sr_complete, content_date, content_time, created_time, ext_retrieve_aet, inst_custom1,
    inst_custom2, inst_custom3, inst_no, num_frames, retrieve_aets, sop_cuid, sop_iuid, updated_time, sr_verified, version,
    dicomattrs_fk, srcode_fk, series_fk)
select pk, 0, '*', to_char(stored, 'YYYYMMDD'), to_char(stored, 'HH24MISS.US'), stored,
       case when pk % 20 = 0 then 'FERNARCHIV' end, '*', '*', case when pk % 500 = 0 then pg_temp.description(pk / 500) else '*' end,
       (pk % 400)::int, case when pk % 100 = 0 then 64 end, 'KAAPANA', class, iuid, stored + interval '1.5 seconds', '*', pk % 2,
       (:attrs_instance) + pk, null, series
from instance_plan;

insert into uidmap select n, decode(md5('uidmap' || n) || '00', 'hex') from generate_series(1, 5) n;
insert into location (pk, created_time, digest, multi_ref, object_type, object_size, status, storage_id, storage_path, tsuid,
    instance_fk, uidmap_fk)
select instance.pk, instance.stored, coalesce(md5(file.content), md5(instance.iuid)), null, 0, coalesce(length(file.content), 526336),
       0, 'fs1', instance.path, '1.2.840.10008.1.2.1', instance.pk, case when instance.pk % 333 = 0 then 1 + instance.pk % 5 end
from instance_plan instance
left join file_plan file using (pk);

insert into content_item (pk, rel_type, text_value, code_fk, name_fk, instance_fk)
select n, 'CONTAINS', case when n % 3 > 0 then pg_temp.description(n) end, case when n % 3 = 0 then 1 + n % 24 end, 1 + n % 24,
       1 + n * 29 % :instances
from generate_series(1, :instances::bigint / 40) n;
insert into verify_observer
select n, to_char(pg_temp.moment(n), 'YYYYMMDDHH24MISS'), null, 1 + n * 31 % :instances
from generate_series(1, :instances::bigint / 500 + 5) n;
insert into rejected_instance
select n, pg_temp.moment(n), pg_temp.uid(2, n), '1.2.840.10008.5.1.4.1.1.2', pg_temp.uid(8, n), pg_temp.uid(1, n), 1 + n % 24
from generate_series(1, :instances::bigint / 1000 + 5) n;

insert into mwl_item (pk, accession_no, accno_entity_id, admission_id, created_time, institution, department, local_aet, modality,
    req_proc_id, sps_id, sps_start_date, sps_start_time, sps_status, study_iuid, updated_time, version, dicomattrs_fk, patient_fk,
    perf_phys_name_fk)
select n, 'ACC' || n, 'RIS', '*', pg_temp.moment(n), 'Klinik Süd', '*', pg_temp.pick(array['DCM4CHEE', 'WORKLIST', ''], n),
       pg_temp.pick(array['CT', 'MR'], n), 'RP' || n, 'SPS' || n, to_char(pg_temp.moment(n), 'YYYYMMDD'), '080000', n % 8,
       pg_temp.uid(5, n), pg_temp.moment(n + 1), 0, (:attrs_request) + n, 1 + n % (:patients), (:patients) + (:studies) + n
from generate_series(1, (:requests)) n;
insert into sps_station_aet select n, case when n % 6 > 0 then 'STATION_' || n % 12 end from generate_series(1, (:requests)) n;
insert into mpps (pk, accession_no, accno_entity_id, created_time, pps_start_date, pps_start_time, sop_iuid, pps_status, study_iuid,
    updated_time, version, dicomattrs_fk, discreason_code_fk, patient_fk)
select n, 'ACC' || n, case when n % 2 = 0 then 'RIS' end, pg_temp.moment(n), to_char(pg_temp.moment(n), 'YYYYMMDD'), '080000',
       pg_temp.uid(6, n), n % 3, pg_temp.uid(1, n), pg_temp.moment(n), 0, (:attrs_mpps) + n, null, 1 + n % (:patients)
from generate_series(1, (:requests)) n;

insert into task (pk, batch_id, check_different, check_missing, completed, created_time, device_name, different, error_msg, exporter_id,
    local_aet, matches, missing, num_failures, outcome_msg, payload, proc_end_time, proc_start_time, queue_name, remote_aet, rq_uri,
    scheduled_time, series_iuid, study_iuid, task_status, task_type, updated_time, version, warning)
select n, case when n % 3 = 0 then 'batch ' || n / 30 end, n % 2 = 0, null, n % 20, pg_temp.moment(n), 'kaapana', 0,
       case when n % 15 = 0 then E'java.net.ConnectException:\n\tConnection refused' end, pg_temp.pick(array['STORESCP', 'ctp', null], n),
       'KAAPANA', 0, 0, n % 3, case when n % 4 = 0 then '' end,
       case when n % 5 = 0 then decode(repeat(md5('payload' || n) || '00ff5c', 12), 'hex') end,
       pg_temp.moment(n) + interval '2 seconds', pg_temp.moment(n), 'Export1', 'CTP', 'http://dcm4chee-service/dcm4chee-arc/aets/' || n,
       pg_temp.moment(n), case when n % 2 = 0 then pg_temp.uid(2, n) end, pg_temp.uid(1, n), n % 7, n % 11, pg_temp.moment(n + 1), 1, 0
from generate_series(1, (:tasks)) n;
insert into rel_task_dicomattrs select n, (:attrs_rest) + 20 + n from generate_series(1, 5) n;

insert into stgcmt_result (pk, batch_id, created_time, device_name, exporter_id, num_failures, num_instances, stgcmt_status,
    study_iuid, task_fk, transaction_uid, updated_time)
select n, null, pg_temp.moment(n), 'kaapana', 'STORESCP', 0, 20, n % 4, pg_temp.uid(1, n), n, pg_temp.uid(7, n), pg_temp.moment(n)
from generate_series(1, 10) n;
insert into hl7psu_task (pk, aet, created_time, device_name, pps_status, scheduled_time, study_iuid, mpps_fk)
select n, 'KAAPANA', pg_temp.moment(n), 'kaapana', n % 3, null, pg_temp.uid(1, n), n from generate_series(1, 9) n;
insert into ian_task (pk, calling_aet, device_name, ian_dests, scheduled_time, study_iuid, mpps_fk)
select n, 'KAAPANA', 'kaapana', 'A\B', null, pg_temp.uid(1, n), null from generate_series(1, 7) n;

insert into ups (pk, admission_id, created_time, expected_end_date_time, input_readiness_state, performer_aet, ups_state, replaced_iuid,
    expiration_date_time, start_date_time, updated_time, ups_iuid, ups_label, ups_priority, version, worklist_label, dicomattrs_fk,
    patient_fk, ups_code_fk)
select n, '*', pg_temp.moment(n), '*', n % 3, null, n % 4, '*', '*', '20240101080000', pg_temp.moment(n), pg_temp.uid(4, n),
       pg_temp.description(n), n % 3, 0, 'WORKLIST', (:attrs_rest) + n, n, 1 + n from generate_series(1, 12) n;
insert into ups_req (pk, accession_no, req_proc_id, req_service, study_iuid, ups_fk)
select n, 'ACC' || n, 'RP' || n, '*', pg_temp.uid(1, n), n from generate_series(1, 12) n;
insert into rel_ups_perf_code select n, n from generate_series(1, 12) n;
insert into rel_ups_station_class_code select n, n + 1 from generate_series(1, 6) n;
insert into rel_ups_station_location_code select n, n + 2 from generate_series(1, 6) n;
insert into rel_ups_station_name_code select n, n + 3 from generate_series(1, 12) n;
-- Two rows alike, in a table without a key: only a count or a checksum notices when one is missing or doubled.
insert into rel_ups_station_name_code values (1, 4);
insert into subscription select n, n % 2 = 0, 'SUBSCRIBER' || n, n from generate_series(1, 12) n;
insert into global_subscription
select n, true, 'GLOBAL' || n, case when n = 1 then (:attrs_rest) + 30 end from generate_series(1, 3) n;

insert into id_sequence values ('accession', 4711, 3), ('procedure', 1, 0), ('Größe', 2147480000, null);
insert into patient_demographics
select 'LAB' || lpad(n::text, 7, '0'), case when n % 2 = 0 then '19500101' end, pg_temp.family_name(n), case when n % 3 = 0 then '' else 'F' end
from generate_series(1, 30) n;

do $$
declare
    name text;
begin
    for name in select c.table_name from information_schema.columns c
        where c.table_schema = 'public' and c.column_name = 'pk' and c.table_name <> 'ups_req'
    loop
        execute format('select setval(%L, greatest(max(pk), 1)) from %I', 'public.' || name || '_pk_seq', name);
    end loop;
    perform setval('ups_request_pk_seq', (select max(pk) from ups_req));
end
$$;

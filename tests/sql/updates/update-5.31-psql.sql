-- Stand-in for the 5.30 -> 5.31 update: a patient may have many identifiers, so the link moves from
-- patient to patient_id. The last statement removes the only other copy of the link.

-- while 5.30 runs
alter table patient_id add column patient_fk bigint;
alter table patient_id add constraint fk_patient_id_patient_fk foreign key (patient_fk) references patient (pk);
update patient_id set patient_fk = (
    select owner.pk from patient owner where owner.patient_id_fk = patient_id.pk
);
create index ix_patient_id_patient_fk on patient_id (patient_fk);

-- between 5.30 and 5.31
update patient_id set patient_fk = (
    select owner.pk from patient owner where owner.patient_id_fk = patient_id.pk
) where patient_fk is null;

-- while 5.31 runs
alter table patient drop column patient_id_fk;

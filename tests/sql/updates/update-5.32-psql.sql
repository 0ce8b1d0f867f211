-- Stand-in for the 5.31.1 -> 5.32 update: '*' stands for "no other archive has it", and studies get a
-- mark while they are being deleted. By far the largest of the seven: it rewrites most of `instance`.

-- while 5.31 runs
update instance set ext_retrieve_aet = '*' where ext_retrieve_aet is null;
update series set ext_retrieve_aet = '*' where ext_retrieve_aet is null;
alter table study add column study_deleting boolean;

-- Unconditional on purpose: a second run takes the mark off studies that are being deleted.
update study set study_deleting = false;

-- between 5.31 and 5.32
update instance set ext_retrieve_aet = '*' where ext_retrieve_aet is null;
update series set ext_retrieve_aet = '*' where ext_retrieve_aet is null;
update study set study_deleting = false where study_deleting is null;

-- while 5.32 runs
alter table instance alter column ext_retrieve_aet set not null;
alter table series alter column ext_retrieve_aet set not null;
alter table study alter column study_deleting set not null;

-- Stand-in for the 5.29 -> 5.30 update: worklist items are found by label, not by AE title.

-- while 5.29 runs
alter table mwl_item add column worklist_label varchar(255);
update mwl_item set worklist_label = local_aet;
create index ix_mwl_item_worklist_label on mwl_item (worklist_label);

-- between 5.29 and 5.30
alter table mwl_item alter column local_aet drop not null;
update mwl_item set worklist_label = local_aet where worklist_label is null;

-- while 5.30 runs
alter table mwl_item alter column worklist_label set not null;
alter table mwl_item drop column local_aet;

-- Stand-in for the 5.31 -> 5.31.1 update.
create index ix_task_exporter_id on task (exporter_id);

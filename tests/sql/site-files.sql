copy (select path, encode(content, 'hex') from file_plan order by pk) to stdout;

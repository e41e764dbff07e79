-- When runs counted what they counted, for pictures of the last days: some counters, by the minute.

create table era.counter_history (
    minute timestamptz not null,
    name   text not null,
    labels jsonb not null default '{}',
    value  double precision not null,
    primary key (minute, name, labels)
);
comment on table era.counter_history is
    'What runs added to some of the counters in a minute; kept for eight days, and no row for a minute without work.';

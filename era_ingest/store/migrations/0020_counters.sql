-- What runs counted, for /metrics: runs are processes that come and go, so what they count is kept here.

create table era.counters (
    name   text not null,
    labels jsonb not null default '{}',
    value  double precision not null,
    primary key (name, labels)
) with (fillfactor = 50);                          -- updated in place, over and over
comment on table era.counters is
    'Totals over all runs, ever: each run adds what it counted since it added last. They only grow.';

create table era.run_meters (
    writer     uuid primary key,
    run_id     text not null,
    beat       bigint not null,
    state      jsonb,
    touched_at timestamptz not null default now()
) with (fillfactor = 50);
comment on table era.run_meters is 'Runs that add to the counters, and how each stands; swept after a day.';
comment on column era.run_meters.beat is
    'The number of the last addition: one that is sent again, since its outcome was lost, is not added again.';
comment on column era.run_meters.state is 'Limit, requests in flight, what holds them; null: the run has ended.';

-- What runs on one key know together about its limit: see core/limiter/board.py. Worth nothing after a few
-- seconds, so it needs no write-ahead log: a crash of the server empties it, and the runs begin anew.
create unlogged table era.pace_boards (
    key text primary key,                          -- a hash of endpoint, model and API key
    version bigint not null,                       -- counts the writes: whoever read an older one reads again
    state jsonb not null,
    touched_at timestamptz not null default now()
);

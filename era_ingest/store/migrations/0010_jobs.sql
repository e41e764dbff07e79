-- Books that were handed in over HTTP. How a job stands, Dagster's runs say; here is what it was asked for.

create table era.jobs (
    id           uuid primary key,
    book         text not null,
    slug         text not null,
    priority     integer not null,
    key_digest   bytea unique check (octet_length(key_digest) = 32),
    body_digest  bytea not null check (octet_length(body_digest) = 32),
    accepted_at  timestamptz not null default now(),
    placed_at    timestamptz,
    requested_at timestamptz
);
comment on table era.jobs is 'Jobs of the HTTP service; a job''s id is also the id of its first Dagster run.';
comment on column era.jobs.key_digest is 'SHA-256 of caller and Idempotency-Key; null: none was sent.';
comment on column era.jobs.body_digest is 'SHA-256 of what was posted: the same key with another one is refused.';
comment on column era.jobs.placed_at is
    'When its book lay in the landing folder: from then on the job is kept, whatever happens.';
comment on column era.jobs.requested_at is 'When its run stood in the queue; null: on its way there.';
create index jobs_order on era.jobs (accepted_at, id);
create index jobs_book on era.jobs (book, accepted_at, id);
create index jobs_unrequested on era.jobs (id) where requested_at is null;

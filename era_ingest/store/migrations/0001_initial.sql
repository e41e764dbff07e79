-- The schema of version 1. Runs once, inside the transaction of era_ingest.store.schema.migrate.
-- The tables era.vectors_<id> are made by era_ingest.store.models, one for each embedding model.

create table era.models (
    id           smallint primary key generated always as identity,
    name         text not null unique,
    backend      text not null,
    dimensions   integer not null check (dimensions between 1 and 16000),
    active       boolean not null default false,
    created_at   timestamptz not null default now(),
    activated_at timestamptz
);
comment on table era.models is 'Embedding models by identity; the active one is what search and the views see.';
create unique index models_one_active on era.models (active) where active;

-- The embedding store: a vector paid for once, kept for ever. Its column has no size, since models differ;
-- era.vectors_<id> fixes the size. Vectors lie inside their rows up to 2,000 floats (scans are 3 times faster).
create table era.embeddings (
    model_id     smallint not null references era.models (id),
    content_hash bytea not null check (octet_length(content_hash) = 32),
    embedding    vector not null constraint embeddings_unit_norm
                 check (abs(vector_norm(embedding) - 1) < 0.001),
    created_at   timestamptz not null default now(),
    primary key (model_id, content_hash)
) with (toast_tuple_target = 8160);
comment on table era.embeddings is 'Vectors by model and SHA-256 of the text; never deleted.';

create table era.doctrine_sources (
    book                text primary key,
    slug                text not null unique,
    title               text,
    root                text not null,
    format              text not null,
    files               jsonb not null,
    content_fingerprint text not null,
    processing          text not null,
    modified_at         timestamptz not null,
    chapters            integer not null,
    entries             integer not null,
    passages            integer not null,
    defects             integer not null,
    texts_embedded      integer not null,
    texts_reused        integer not null,
    run_id              text not null,
    loaded_at           timestamptz not null default now()
);
comment on table era.doctrine_sources is 'Provenance: one row a book that is loaded.';
comment on column era.doctrine_sources.files is
    'Array of {path, role, size, mtime_ns, inode, sha256}, as read.';
comment on column era.doctrine_sources.modified_at is
    'Latest modification of the files whose content is loaded; a touch without a change does not move it.';

create table era.book_models (
    book                text not null references era.doctrine_sources (book) on delete cascade,
    model_id            smallint not null references era.models (id),
    content_fingerprint text not null,
    loaded_at           timestamptz not null default now(),
    primary key (book, model_id)
);
comment on table era.book_models is 'Which content of a book the table of a model holds.';

create table era.quarantine (
    id           uuid primary key,
    kind         text not null check (kind in ('document', 'item', 'text')),
    book         text,
    file         text,
    pointer      text,
    reason       text not null,
    detail       text not null,
    content_hash bytea,
    model        text,
    text         text,
    run_id       text not null,
    first_seen   timestamptz not null default now(),
    last_seen    timestamptz not null default now(),
    check ((kind = 'text') = (content_hash is not null and model is not null))
);
comment on table era.quarantine is
    'What was refused: documents and items of the input, and texts that the embedder refused.';
create index quarantine_book on era.quarantine (book);
create index quarantine_texts on era.quarantine (model, content_hash) where kind = 'text';

create table era.domains (
    domain      text primary key,
    change_no   bigint not null default 0,
    changed_at  timestamptz not null default now(),
    doctrine_no bigint not null default 0,
    updated_at  timestamptz,
    built_no    bigint not null default 0,
    built_at    timestamptz,
    indexed_no  bigint not null default 0,
    statistics  jsonb
);
comment on table era.domains is 'One row a domain: how often it changed, and which change was built from last.';
comment on column era.domains.change_no is 'Raised with any row of the domain; indexed_no follows it.';
comment on column era.domains.doctrine_no is 'Raised with any doctrine entry of the domain; built_no follows it.';
comment on column era.domains.updated_at is
    'Latest modification time of a source whose load changed the doctrine of the domain.';
comment on column era.domains.statistics is 'Counts, written with the minister files.';

create table era.landing_files (
    slug              text primary key,
    name              text not null,
    root              bytea not null,
    path              bytea not null,
    fingerprint       text not null,
    since             timestamptz not null,
    taken_fingerprint text,
    taken_at          timestamptz
);
comment on table era.landing_files is
    'What the sensor saw in the landing folder; fingerprint '''' stands for a book that is gone.';
comment on column era.landing_files.path is 'As bytes, since file names need not be text; root likewise.';

-- What readers see of an installation without a model; era_ingest.store.models replaces both.
create view era.doctrine_embeddings_all as
select null::uuid as id, null::text as book, null::integer as chapter, null::text as category,
       null::text[] as domains, null::text as text, null::double precision as weight,
       null::bytea as content_hash, null::text as model, null::vector as embedding,
       null::text as chapter_title, null::integer as start_char, null::integer as end_char
where false;

create view era.minister_entries as
select null::uuid as id, null::text as book, null::integer as chapter, null::text as chapter_title,
       null::text as category, null::text[] as domains, null::text as text, null::double precision as weight,
       null::bytea as content_hash, null::uuid as embedding_id, null::text as model
where false;

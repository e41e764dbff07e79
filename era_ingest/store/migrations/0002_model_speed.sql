-- What the last run with a model came to, so that a plan can say how long the next one takes.

alter table era.models add column texts_per_s double precision check (texts_per_s > 0);
comment on column era.models.texts_per_s is
    'Texts embedded and committed a second by the last run that embedded at least 100.';

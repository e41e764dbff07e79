-- A foreign key looks up the model once a row: a fifth of the time of storing vectors. Vectors are stored by one
-- function only, with the number of a model that it was given from era.models, where none is ever deleted;
-- `era verify` looks for vectors without a model.

alter table era.embeddings drop constraint embeddings_model_id_fkey;

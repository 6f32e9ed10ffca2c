-- The resource that an operation has for itself while it is not done, as a hash of API and name: where one
-- start may refuse or supersede another. Rows of before have none, for then such starts were refused.
ALTER TABLE operation ADD COLUMN alone_hash bigint;

CREATE INDEX operation_alone ON operation (alone_hash) WHERE alone_hash IS NOT NULL;

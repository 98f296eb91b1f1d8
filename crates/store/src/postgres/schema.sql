CREATE TABLE meta (
    name text PRIMARY KEY,
    value bytea NOT NULL
);

-- One row for each life of an instance: its log, in which it is the only writer. `term` goes up with
-- every connection that writes to it, so that what an older connection left behind cannot.
CREATE TABLE logs (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    term bigint NOT NULL DEFAULT 0,
    size bigint NOT NULL DEFAULT 0,
    root bytea NOT NULL,
    at bigint NOT NULL DEFAULT 0,
    started timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_until timestamptz NOT NULL
) WITH (fillfactor = 50);

-- The fence: where each stream stands.
CREATE TABLE streams (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    next_seq bigint NOT NULL DEFAULT 0,
    last_hash bytea
) WITH (fillfactor = 70);

CREATE TABLE receipts (
    pos bigint NOT NULL CONSTRAINT receipts_pos UNIQUE,
    stream bigint NOT NULL,
    seq bigint NOT NULL,
    log bigint NOT NULL,
    log_pos bigint NOT NULL,
    id bytea NOT NULL CONSTRAINT receipts_id UNIQUE,
    hash bytea NOT NULL,
    chain_hash bytea NOT NULL,
    core text NOT NULL,
    PRIMARY KEY (stream, seq)
);

CREATE TABLE keys (
    key bytea PRIMARY KEY,
    pos bigint NOT NULL
);

CREATE TABLE attempts (
    id bytea PRIMARY KEY,
    pos bigint NOT NULL,
    log bigint NOT NULL
);

CREATE TABLE due (
    stream bigint PRIMARY KEY,
    at bigint NOT NULL
);
CREATE INDEX due_at ON due (at);

CREATE TABLE snapshots (
    stream bigint PRIMARY KEY,
    seq bigint NOT NULL,
    hash bytea NOT NULL,
    at bigint NOT NULL,
    state bytea NOT NULL
);

CREATE VIEW readable AS
SELECT r.pos, s.name AS stream, r.seq, r.log,
    r.core::json ->> 'type' AS type,
    r.core::json ->> 'action' AS action,
    r.core::json ->> 'state_from' AS state_from,
    r.core::json ->> 'state_to' AS state_to,
    r.core::json ->> 'reason' AS reason,
    r.core::json ->> 'at' AS at,
    encode(r.hash, 'hex') AS hash
FROM receipts r JOIN streams s ON s.no = r.stream;

-- Keeps a slip of the hand and a defect of this program from changing history. The owner of the
-- table can drop the trigger and write past it: that is what the chain is for, and a role of its own
-- that may only SELECT and INSERT.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'receipts are final' USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE TRIGGER receipts_are_final BEFORE UPDATE OR DELETE OR TRUNCATE ON receipts
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Appends a batch: all of it or nothing. One statement, so that no lock is ever held over a round
-- trip and a client that dies leaves nothing open.
--
-- Gives NULL when it was written, no name when the writer's own log is not where the batch begins,
-- and else the names of the streams that another writer has moved on.
--
-- `names` are the streams of the batch in byte order, which is the order in which everybody locks
-- them; `seqs`, `prevs` say where the first receipt of each goes, NULL for a stream that has no
-- receipt in it. Other arrays name streams by their place in `names`.
CREATE FUNCTION ledger_append(
    own bigint, own_term bigint, lease_s bigint,
    before_size bigint, before_root bytea, after_size bigint, after_root bytea, after_at bigint,
    names text[], seqs bigint[], prevs bytea[], nexts bigint[], lasts bytea[],
    r_stream int[], r_seq bigint[], r_pos bigint[],
    r_id bytea[], r_hash bytea[], r_chain_hash bytea[], r_core text[],
    k_key bytea[], k_pos bigint[], a_id bytea[], a_pos bigint[], settled bytea[],
    d_stream int[], d_at bigint[],
    n_stream int[], n_seq bigint[], n_hash bytea[], n_at bigint[], n_state bytea[]
) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    numbers bigint[];
    lost text[];
BEGIN
    PERFORM 1 FROM logs l
    WHERE l.no = own AND l.term = own_term AND l.size = before_size AND l.root = before_root
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN '{}';
    END IF;

    WITH locked AS MATERIALIZED (
        SELECT s.no, s.name, s.next_seq, s.last_hash FROM streams s
        WHERE s.name = ANY (names) ORDER BY s.name FOR NO KEY UPDATE
    )
    SELECT array_agg(l.no ORDER BY w.nth),
        array_agg(w.name) FILTER (WHERE w.seq IS NOT NULL
            AND (coalesce(l.next_seq, 0) <> w.seq OR l.last_hash IS DISTINCT FROM w.prev))
    INTO numbers, lost
    FROM unnest(names, seqs, prevs) WITH ORDINALITY AS w (name, seq, prev, nth)
    LEFT JOIN locked l ON l.name = w.name;
    IF lost IS NOT NULL THEN
        RETURN lost;
    END IF;

    IF array_position(numbers, NULL) IS NOT NULL THEN
        WITH made AS (
            INSERT INTO streams (name)
            SELECT w.name FROM unnest(names, numbers) WITH ORDINALITY AS w (name, no, nth)
            WHERE w.no IS NULL ORDER BY w.nth
            ON CONFLICT (name) DO NOTHING
            RETURNING no, name
        )
        SELECT array_agg(coalesce(w.no, m.no) ORDER BY w.nth),
            array_agg(w.name) FILTER (WHERE w.no IS NULL AND m.no IS NULL)
        INTO numbers, lost
        FROM unnest(names, numbers) WITH ORDINALITY AS w (name, no, nth)
        LEFT JOIN made m ON m.name = w.name;
        IF lost IS NOT NULL THEN
            -- Begun by another writer since the look above. Raised, so that the streams that were
            -- made here go away again.
            RAISE EXCEPTION 'streams were begun by another writer'
                USING ERRCODE = 'TAI01', DETAIL = array_to_string(lost, E'\n');
        END IF;
    END IF;

    INSERT INTO receipts (pos, stream, seq, log, log_pos, id, hash, chain_hash, core)
    SELECT r.pos, numbers[r.stream], r.seq, own, before_size + r.nth, r.id, r.hash, r.chain_hash,
        r.core
    FROM unnest(r_stream, r_seq, r_pos, r_id, r_hash, r_chain_hash, r_core) WITH ORDINALITY
        AS r (stream, seq, pos, id, hash, chain_hash, core, nth);

    UPDATE streams s SET next_seq = w.next_seq, last_hash = w.last_hash
    FROM unnest(numbers, seqs, nexts, lasts) AS w (no, seq, next_seq, last_hash)
    WHERE s.no = w.no AND w.seq IS NOT NULL;

    IF cardinality(k_key) > 0 THEN
        INSERT INTO keys (key, pos) SELECT k.key, k.pos FROM unnest(k_key, k_pos) AS k (key, pos);
    END IF;
    IF cardinality(a_id) > 0 THEN
        INSERT INTO attempts (id, pos, log)
        SELECT a.id, a.pos, own FROM unnest(a_id, a_pos) AS a (id, pos);
    END IF;
    IF cardinality(settled) > 0 THEN
        DELETE FROM attempts a WHERE a.id = ANY (settled);
    END IF;
    IF cardinality(d_stream) > 0 THEN
        INSERT INTO due AS d (stream, at)
        SELECT numbers[w.stream], w.at FROM unnest(d_stream, d_at) AS w (stream, at)
        WHERE w.at IS NOT NULL
        ON CONFLICT (stream) DO UPDATE SET at = excluded.at;
        DELETE FROM due d USING unnest(d_stream, d_at) AS w (stream, at)
        WHERE w.at IS NULL AND d.stream = numbers[w.stream];
    END IF;
    IF cardinality(n_stream) > 0 THEN
        INSERT INTO snapshots AS n (stream, seq, hash, at, state)
        SELECT numbers[w.stream], w.seq, w.hash, w.at, w.state
        FROM unnest(n_stream, n_seq, n_hash, n_at, n_state) AS w (stream, seq, hash, at, state)
        ON CONFLICT (stream) DO UPDATE
        SET seq = excluded.seq, hash = excluded.hash, at = excluded.at, state = excluded.state;
    END IF;

    UPDATE logs l SET size = after_size, root = after_root, at = after_at,
        lease_until = clock_timestamp() + lease_s * interval '1 second'
    WHERE l.no = own;
    RETURN NULL;
END $$;

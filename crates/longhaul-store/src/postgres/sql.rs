//! Every statement, made once for the configured schema.
//!
//! All tables are written with their schema, so that nothing depends on a session.

use tokio_postgres::types::Type;

use super::rows::READ;
use super::session::Sql;

/// How many columns of the operation table are written.
pub(super) const COLUMN_COUNT: usize = 22;

/// The first of those that an ordinary change can touch; all after it can too.
pub(super) const FIRST_CHANGING: usize = 8;

/// These columns, with their types. The first is the key.
const COLUMNS: [(&str, Type, &str); COLUMN_COUNT] = [
    ("name", Type::TEXT_ARRAY, "text"),
    ("uid", Type::UUID_ARRAY, "uuid"),
    ("kind", Type::INT4_ARRAY, "integer"),
    ("scope", Type::INT4_ARRAY, "integer"),
    ("create_us", Type::INT8_ARRAY, "bigint"),
    ("request_id", Type::TEXT_ARRAY, "text"),
    ("request_type", Type::TEXT_ARRAY, "text"),
    ("request", Type::BYTEA_ARRAY, "bytea"),
    ("revision", Type::INT8_ARRAY, "bigint"),
    ("state", Type::INT2_ARRAY, "smallint"),
    ("hidden", Type::BOOL_ARRAY, "boolean"),
    ("claimable_us", Type::INT8_ARRAY, "bigint"),
    ("due_us", Type::INT8_ARRAY, "bigint"),
    ("parent_name", Type::TEXT_ARRAY, "text"),
    ("follows", Type::BOOL_ARRAY, "boolean"),
    ("cancelled", Type::BOOL_ARRAY, "boolean"),
    ("claim_hash", Type::INT8_ARRAY, "bigint"),
    ("history_rows", Type::INT4_ARRAY, "integer"),
    ("check_sum", Type::INT4_ARRAY, "integer"),
    ("record", Type::BYTEA_ARRAY, "bytea"),
    ("history", Type::BYTEA_ARRAY, "bytea"),
    ("alone_hash", Type::INT8_ARRAY, "bigint"),
];

/// Makes the struct of all statements: a name, the types of its values, its text. `{s}` is the schema,
/// `{READ}` the columns of an operation.
macro_rules! statements {
    ($($name:ident($($of:ident),*) $text:literal;)+) => {
        /// All statements of one schema.
        pub(super) struct Statements {
            $(pub $name: Sql,)+
            pub claimable: Sql,
            pub due: Sql,
            pub write: Sql,
            pub replace: Sql,
            /// By what is asked of `done`: anything, only done, only open.
            pub list: [Sql; 3],
            pub list_many: [Sql; 3],
        }

        impl Statements {
            /// The statements for `schema`, a plain identifier.
            pub fn new(schema: &str) -> Self {
                let s = &format!("\"{schema}\"");
                Self {
                    $($name: Sql::new(
                        $text.replace("{s}", s).replace("{READ}", READ),
                        &[$(Type::$of),*],
                    ),)+
                    claimable: claimable(s),
                    due: due(s),
                    write: write(s),
                    replace: replace(s),
                    list: [0, 1, 2].map(|which| list(s, which)),
                    list_many: [0, 1, 2].map(|which| list_many(s, which)),
                }
            }
        }
    };
}

statements! {
    // One after the other, in the order of the array.
    lock_resources(INT8_ARRAY)
        "SELECT pg_advisory_xact_lock(u.key) FROM unnest($1::bigint[]) AS u(key)";
    rivals(INT8_ARRAY)
        "SELECT o.alone_hash, o.name FROM {s}.operation AS o WHERE o.alone_hash = ANY($1)";
    lock_keys(INT4_ARRAY, TEXT_ARRAY)
        "SELECT r.scope, r.value, r.name FROM {s}.request_id AS r \
         JOIN unnest($1::integer[], $2::text[]) AS u(scope, value) \
         ON r.scope = u.scope AND r.value = u.value \
         ORDER BY r.scope, r.value FOR UPDATE OF r";
    lock_rows(TEXT_ARRAY)
        "SELECT {READ} FROM {s}.operation AS o WHERE o.name = ANY($1) \
         ORDER BY o.name FOR UPDATE";
    open_parents(TEXT_ARRAY)
        "SELECT p.name FROM unnest($1::text[]) AS p(name) WHERE EXISTS \
         (SELECT FROM {s}.operation AS o WHERE o.parent_name = p.name AND o.follows)";
    delete(TEXT_ARRAY)
        "DELETE FROM {s}.operation WHERE name = ANY($1)";
    insert_history(UUID_ARRAY, INT8_ARRAY, INT8_ARRAY, INT4_ARRAY, BYTEA_ARRAY)
        "INSERT INTO {s}.history (uid, first_revision, last_revision, check_sum, record) \
         SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::integer[], $5::bytea[])";
    move_history(UUID, UUID)
        "UPDATE {s}.history SET uid = $2 WHERE uid = $1";
    delete_history(UUID_ARRAY)
        "DELETE FROM {s}.history WHERE uid = ANY($1)";
    insert_keys(INT4_ARRAY, TEXT_ARRAY, TEXT_ARRAY)
        "INSERT INTO {s}.request_id (scope, value, name) \
         SELECT * FROM unnest($1::integer[], $2::text[], $3::text[])";
    move_keys(INT4_ARRAY, TEXT_ARRAY, TEXT_ARRAY)
        "UPDATE {s}.request_id AS r SET name = u.name \
         FROM unnest($1::integer[], $2::text[], $3::text[]) AS u(scope, value, name) \
         WHERE r.scope = u.scope AND r.value = u.value";
    delete_keys(INT4_ARRAY, TEXT_ARRAY, TEXT_ARRAY)
        "DELETE FROM {s}.request_id AS r \
         USING unnest($1::integer[], $2::text[], $3::text[]) AS u(scope, value, name) \
         WHERE r.scope = u.scope AND r.value = u.value AND r.name = u.name";
    fence(INT8, INT8)
        "INSERT INTO {s}.change (server, batch, names, revisions, kinds, claimable_us) \
         VALUES ($1, $2, '{}', '{}', '{}', '{}') \
         ON CONFLICT (server, batch) DO NOTHING RETURNING xid::text";
    first_due()
        "SELECT o.due_us FROM {s}.operation AS o WHERE o.due_us IS NOT NULL \
         ORDER BY o.due_us, o.uid LIMIT 1";
    kinds()
        "SELECT id, api, method, queue FROM {s}.kind";
    scopes(INT4_ARRAY)
        "SELECT id, api, parent FROM {s}.scope WHERE id = ANY($1)";
    add_kind(TEXT, TEXT, TEXT)
        "INSERT INTO {s}.kind (api, method, queue) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    find_kind(TEXT, TEXT, TEXT)
        "SELECT id FROM {s}.kind WHERE api = $1 AND method = $2 AND queue = $3";
    add_scope(TEXT, TEXT)
        "INSERT INTO {s}.scope (api, parent) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    find_scope(TEXT, TEXT)
        "SELECT id FROM {s}.scope WHERE api = $1 AND parent = $2";
    get(TEXT_ARRAY)
        "SELECT {READ} FROM {s}.operation AS o WHERE o.name = ANY($1)";
    claimed(INT8_ARRAY)
        "SELECT {READ} FROM {s}.operation AS o WHERE o.claim_hash = ANY($1)";
    history(UUID, INT8)
        "SELECT first_revision, last_revision, check_sum, record FROM {s}.history \
         WHERE uid = $1 AND last_revision > $2 ORDER BY first_revision";
    children(TEXT, INT8)
        "SELECT o.name FROM {s}.operation AS o WHERE o.parent_name = $1 \
         ORDER BY o.create_us, o.uid LIMIT $2";
    left_behind(INT8)
        "SELECT p.name, o.name FROM {s}.operation AS o \
         JOIN {s}.operation AS p ON p.name = o.parent_name \
         WHERE o.follows AND p.cancelled LIMIT $1";
    scopes_under(TEXT, TEXT)
        "SELECT id, parent FROM {s}.scope WHERE api = $1 AND parent >= $2 \
         AND starts_with(parent, $2)";
    counts()
        "SELECT n.snapshot, t.kind, t.state, t.operations \
         FROM (SELECT pg_current_snapshot()::text AS snapshot) AS n LEFT JOIN \
         (SELECT kind, state, sum(operations)::bigint AS operations FROM {s}.tally \
         GROUP BY kind, state) AS t ON true";
    present(INT8)
        "UPDATE {s}.fleet SET seen = clock_timestamp(), outage = outage + CASE \
         WHEN seen > clock_timestamp() - $1 * interval '1 microsecond' THEN 0 ELSE 1 END \
         RETURNING outage, recovered, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    recovered(INT8)
        "UPDATE {s}.fleet SET recovered = greatest(recovered, $1)";
    server_id()
        "SELECT nextval('{s}.server_id')";
    heartbeat(INT8, TEXT)
        "WITH mine AS (INSERT INTO {s}.server (id, version, seen) \
         VALUES ($1, $2, clock_timestamp()) \
         ON CONFLICT (id) DO UPDATE SET seen = excluded.seen) \
         SELECT count(*) FROM {s}.server \
         WHERE id <> $1 AND seen > clock_timestamp() - interval '10 seconds'";
    leave(INT8)
        "DELETE FROM {s}.server WHERE id = $1";
    changes_begin()
        "SELECT pg_current_snapshot()::text, \
                 (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, NULL::text[], \
                 NULL::bigint[], NULL::integer[], NULL::bigint[], NULL::bigint, NULL::bigint";
    // Those that began after the last look, and those that were under way in it. Not all from its xmin on: a
    // transaction of somebody else that stays open for long would have everything since read again each time.
    changes(INT8, TEXT)
        "SELECT n.snapshot, n.now_us, c.names, c.revisions, c.kinds, c.claimable_us, c.server, c.batch \
         FROM (SELECT pg_current_snapshot()::text AS snapshot, \
         (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now_us) AS n \
         LEFT JOIN (SELECT a.* FROM {s}.change AS a \
         WHERE a.xid >= pg_snapshot_xmax($2::text::pg_snapshot) \
         UNION ALL SELECT b.* FROM pg_snapshot_xip($2::text::pg_snapshot) AS p(xid) \
         JOIN {s}.change AS b ON b.xid = p.xid) AS c ON c.server <> $1";
    prune(INT8, INT8)
        "DELETE FROM {s}.change WHERE server = $1 AND batch < $2";
    prune_dead()
        "WITH dead AS (DELETE FROM {s}.server \
         WHERE seen < clock_timestamp() - interval '10 minutes' RETURNING id) \
         DELETE FROM {s}.change USING dead WHERE change.server = dead.id";
    notify(TEXT, TEXT)
        "SELECT pg_notify($1, $2)";
    token_key()
        "INSERT INTO {s}.meta (key, value) VALUES ('token_key', \
         sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text \
         || gen_random_uuid()::text, 'UTF8'))) ON CONFLICT DO NOTHING";
    moving()
        "SELECT FROM {s}.meta WHERE key = 'moving'";
    scan(INT8, UUID, INT8)
        "SELECT {READ} FROM {s}.operation AS o WHERE (o.create_us, o.uid) > ($1, $2) \
         ORDER BY o.create_us, o.uid LIMIT $3";
    find_token_key()
        "SELECT value FROM {s}.meta WHERE key = 'token_key'";
    later(INT4_ARRAY)
        "SELECT h.claimable_us FROM unnest($1::integer[]) AS k(kind) CROSS JOIN LATERAL \
         (SELECT o.claimable_us FROM {s}.operation AS o WHERE o.kind = k.kind \
         AND o.claimable_us > (extract(epoch FROM clock_timestamp()) * 1000000)::bigint \
         ORDER BY o.kind, o.claimable_us LIMIT 64) AS h ORDER BY 1 LIMIT 1024";
}

fn columns(of: impl Iterator<Item = usize>, form: impl Fn(&str) -> String) -> String {
    of.map(|index| form(COLUMNS[index].0)).collect::<Vec<_>>().join(", ")
}

/// Rows of these columns, from arrays that are values from number `first` on. Not `FROM unnest(..)`, which
/// stores each column before it gives the first row: that takes three times as long.
fn rows(indexes: &[usize], first: usize) -> String {
    let column = |(at, &index): (usize, &usize)| {
        let (name, _, of) = &COLUMNS[index];
        format!("unnest(${}::{of}[]) AS {name}", at + first)
    };
    let all: Vec<_> = indexes.iter().enumerate().map(column).collect();
    format!("SELECT {}", all.join(", "))
}

fn types(indexes: &[usize]) -> impl Iterator<Item = Type> {
    indexes.iter().map(|&index| COLUMNS[index].1.clone())
}

/// What every commit writes, in one statement, for each one sent is answered by itself: new rows, changed
/// rows, how many there are, and that it was made. The values are the arrays of all columns of new rows, those
/// of the changing columns of changed rows, the slot with the three columns of the tally, and the row of the
/// table of changes.
fn write(s: &str) -> Sql {
    let all: Vec<usize> = (0..COLUMN_COUNT).collect();
    let changing: Vec<usize> = std::iter::once(0).chain(FIRST_CHANGING..COLUMN_COUNT).collect();
    let names = columns(all.iter().copied(), str::to_owned);
    let tally = 1 + all.len() + changing.len();
    let change = tally + 4;
    let value = |number: usize| format!("${number}");
    let text = format!(
        "WITH new AS (INSERT INTO {s}.operation ({names}) {new}), \
         changed AS ({update}), \
         counted AS (INSERT INTO {s}.tally AS t (slot, kind, state, operations) \
         SELECT {slot}, unnest({kinds}::integer[]), unnest({states}::smallint[]), \
         unnest({sums}::bigint[]) \
         ON CONFLICT (slot, kind, state) DO UPDATE SET operations = t.operations + excluded.operations) \
         INSERT INTO {s}.change (server, batch, names, revisions, kinds, claimable_us) \
         VALUES ({change}) RETURNING xid::text",
        new = rows(&all, 1),
        update = update(s, &changing, 1 + all.len()),
        slot = value(tally),
        kinds = value(tally + 1),
        states = value(tally + 2),
        sums = value(tally + 3),
        change = (change..change + 6).map(value).collect::<Vec<_>>().join(", "),
    );
    let mut types: Vec<Type> = types(&all).chain(types(&changing)).collect();
    types.extend([Type::INT2, Type::INT4_ARRAY, Type::INT2_ARRAY, Type::INT8_ARRAY]);
    types.extend([Type::INT8, Type::INT8, Type::TEXT_ARRAY]);
    types.extend([Type::INT8_ARRAY, Type::INT4_ARRAY, Type::INT8_ARRAY]);
    Sql::new(text, &types)
}

/// Overwrites whole rows; the values are the arrays of all columns.
fn replace(s: &str) -> Sql {
    let all: Vec<usize> = (0..COLUMN_COUNT).collect();
    Sql::new(update(s, &all, 1), &types(&all).collect::<Vec<_>>())
}

/// Sets columns to arrays that are values from number `first` on; the first column is the key.
fn update(s: &str, indexes: &[usize], first: usize) -> String {
    let sets = columns(indexes[1..].iter().copied(), |name| format!("{name} = u.{name}"));
    format!(
        "UPDATE {s}.operation AS o SET {sets} FROM ({}) AS u WHERE o.name = u.name",
        rows(indexes, first)
    )
}

fn done(which: usize) -> &'static str {
    ["", " AND o.state = 4", " AND o.state < 4"][which]
}

/// Newest first in one scope: the index holds exactly this order, read backwards.
fn list(s: &str, which: usize) -> Sql {
    let text = format!(
        "SELECT {READ} FROM {s}.operation AS o WHERE o.scope = $1 AND NOT o.hidden{} \
         AND (o.create_us, o.uid) < ($2, $3) \
         ORDER BY o.scope DESC, o.create_us DESC, o.uid DESC LIMIT $4",
        done(which)
    );
    Sql::new(text, &[Type::INT4, Type::INT8, Type::UUID, Type::INT8])
}

/// The same over many scopes: the heads of each, merged.
fn list_many(s: &str, which: usize) -> Sql {
    let text = format!(
        "SELECT {READ} FROM (SELECT h.name, h.create_us, h.uid FROM unnest($1::integer[]) AS s(scope) \
         CROSS JOIN LATERAL (SELECT o.name, o.create_us, o.uid FROM {s}.operation AS o \
           WHERE o.scope = s.scope AND NOT o.hidden{} AND (o.create_us, o.uid) < ($2, $3) \
           ORDER BY o.scope DESC, o.create_us DESC, o.uid DESC LIMIT $4) AS h \
         ORDER BY h.create_us DESC, h.uid DESC LIMIT $4) AS page \
         JOIN {s}.operation AS o ON o.name = page.name \
         ORDER BY page.create_us DESC, page.uid DESC",
        done(which)
    );
    Sql::new(text, &[Type::INT4_ARRAY, Type::INT8, Type::UUID, Type::INT8])
}

/// The longest claimable of some kinds, in order. Heads are looked at without a lock, then locked in
/// order, past those that another transaction holds.
fn claimable(s: &str) -> Sql {
    let text = format!(
        "WITH head AS MATERIALIZED (SELECT h.name FROM unnest($1::integer[]) AS k(kind) \
         CROSS JOIN LATERAL (SELECT o.name, o.claimable_us, o.create_us, o.uid FROM {s}.operation AS o \
           WHERE o.kind = k.kind AND o.claimable_us <= $2 \
           AND (o.claimable_us, o.create_us, o.uid) > ($3, $4, $5) \
           ORDER BY o.kind, o.claimable_us, o.create_us, o.uid LIMIT $6) AS h \
         ORDER BY h.claimable_us, h.create_us, h.uid LIMIT $6) \
         SELECT {READ} FROM head JOIN {s}.operation AS o ON o.name = head.name \
         WHERE o.claimable_us <= $2 ORDER BY o.claimable_us, o.create_us, o.uid LIMIT $7 \
         FOR UPDATE OF o SKIP LOCKED"
    );
    let types =
        [Type::INT4_ARRAY, Type::INT8, Type::INT8, Type::INT8, Type::UUID, Type::INT8, Type::INT8];
    Sql::new(text, &types)
}

/// The most overdue, in order, past those that another transaction holds.
fn due(s: &str) -> Sql {
    let text = format!(
        "WITH head AS MATERIALIZED (SELECT o.name FROM {s}.operation AS o \
         WHERE o.due_us <= $1 AND (o.due_us, o.uid) > ($2, $3) ORDER BY o.due_us, o.uid LIMIT $4) \
         SELECT {READ} FROM head JOIN {s}.operation AS o ON o.name = head.name \
         WHERE o.due_us <= $1 ORDER BY o.due_us, o.uid LIMIT $5 FOR UPDATE OF o SKIP LOCKED"
    );
    Sql::new(text, &[Type::INT8, Type::INT8, Type::UUID, Type::INT8, Type::INT8])
}

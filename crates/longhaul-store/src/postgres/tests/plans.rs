//! How PostgreSQL finds rows: each question by an index of its own, never by reading the whole table.

use tokio_postgres::NoTls;
use tokio_postgres::types::Type;

use super::super::session::{NOT_SO, Sql};
use super::super::sql::Statements;
use super::options;
use crate::conformance::world::{World, a_start, at};

/// The plan that is kept for a prepared statement, whatever its values.
async fn plan(client: &tokio_postgres::Client, sql: &Sql) -> String {
    let types: Vec<&str> = sql.types.iter().map(Type::name).collect();
    let types = if types.is_empty() { String::new() } else { format!("({})", types.join(", ")) };
    let nulls = vec!["NULL"; sql.types.len()].join(", ");
    let values = if nulls.is_empty() { String::new() } else { format!("({nulls})") };
    let text = format!("PREPARE it{types} AS {}; ", sql.text);
    client.batch_execute(&text).await.expect("the statement is prepared");
    let explain = format!("EXPLAIN (COSTS OFF) EXECUTE it{values}");
    let rows = client.simple_query(&explain).await.expect("the plan is told");
    client.batch_execute("DEALLOCATE it").await.expect("it goes");
    let lines = rows.iter().filter_map(|row| {
        let tokio_postgres::SimpleQueryMessage::Row(row) = row else { return None };
        row.get(0)
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn check(what: &str, plan: &str, index: &str) {
    assert!(plan.contains(index), "{what} does not use {index}:\n{plan}");
    assert!(!plan.contains("Seq Scan"), "{what} reads a whole table:\n{plan}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_question_has_its_index() {
    let options = options();
    let notes = std::sync::Arc::new(crate::conformance::world::Notes::default());
    let world = World { store: super::opened(&options, notes.clone()), notes };
    world.start_all((0..500).map(|index| a_start(&format!("o{index}"))), at(0)).await;
    let (client, connection) =
        tokio_postgres::connect(&options.url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    let settings = format!(
        "ANALYZE \"{}\".operation; SET plan_cache_mode = force_generic_plan{}",
        options.schema,
        NOT_SO.map(|way| format!("; SET {way} = off")).concat(),
    );
    client.batch_execute(&settings).await.expect("the settings");
    let sql = Statements::new(&options.schema);
    for (what, sql, index) in [
        ("get", &sql.get, "operation_pkey"),
        ("lock", &sql.lock_rows, "operation_pkey"),
        ("write", &sql.write, "operation_pkey"),
        ("replace", &sql.replace, "operation_pkey"),
        ("claim", &sql.claimable, "operation_claimable"),
        ("due", &sql.due, "operation_due"),
        ("first due", &sql.first_due, "operation_due"),
        ("list", &sql.list[0], "Index Scan Backward using operation_listed on"),
        ("list done", &sql.list[1], "Index Scan Backward using operation_listed on"),
        ("list open", &sql.list[2], "Index Scan Backward using operation_listed_open on"),
        ("list many", &sql.list_many[0], "Index Scan Backward using operation_listed on"),
        ("children", &sql.children, "operation_child"),
        ("left behind", &sql.left_behind, "operation_follows"),
        ("rivals", &sql.rivals, "operation_alone"),
        ("claimed", &sql.claimed, "operation_claimed"),
        ("history", &sql.history, "history_pkey"),
        ("changes", &sql.changes, "change_xid"),
    ] {
        check(what, &plan(&client, sql).await, index);
    }
    // A list reads one row for each that it returns: nothing is sorted.
    for list in &sql.list {
        let plan = plan(&client, list).await;
        assert!(!plan.contains("Sort"), "{plan}");
    }
    world.store.close().await;
}

//! Attempts whose process died: repeated under their own id where that is safe, given up as
//! unknown where it is not, settled once in both cases (INV-2, INV-3).

use engine::actions::Registry;
use engine::ports::Store;
use types::ReceiptId;

use crate::robot::{Robot, Step};
use crate::world::{World, eventually, reserve, runtime, settled, signal, tenant, verify};

/// Starts an action that never ends and kills its process; the attempt's id.
fn orphaned(world: &World, metric: &str, robot: &Robot) -> ReceiptId {
    world.life(|running| async move {
        running.admit([1]).await;
        running.decide(tenant(1), signal(metric, 90)).await;
        eventually("the action runs", || robot.calls() == 1).await;
    });
    let open = world.store.unsettled(10).unwrap();
    assert_eq!(open.len(), 1, "the crash left one attempt");
    assert_eq!(robot.attempts(), [open[0].id]);
    open[0].id
}

fn survive(world: &World) {
    runtime().block_on(async {
        let running = world.start();
        settled(world, 1).await;
        running.end(world).await;
    });
}

#[test]
fn an_orphan_that_may_be_repeated_is_repeated_under_its_own_id() {
    let robot = Robot::new("scale", true, Step::Hang);
    let world = World::new().with(robot.clone());
    let attempt = orphaned(&world, "load", &robot);
    robot.otherwise(Step::Done);
    survive(&world);
    assert_eq!(robot.attempts(), [attempt, attempt], "the same key of the same effect");
    assert_eq!(verify(&world.store).statuses(), ["success"]);
}

#[test]
fn an_orphan_that_may_not_be_repeated_is_given_up_as_unknown() {
    let robot = Robot::new("wipe", false, Step::Hang);
    let world = World::new().with(robot.clone());
    let attempt = orphaned(&world, "disk", &robot);
    robot.otherwise(Step::Done);
    survive(&world);
    assert_eq!(robot.attempts(), [attempt], "it was not run again");
    assert_eq!(verify(&world.store).statuses(), ["unknown"]);
}

#[test]
fn an_orphan_of_an_action_that_is_gone_is_given_up_as_unknown() {
    let robot = Robot::new("scale", true, Step::Hang);
    let mut world = World::new().with(robot.clone());
    orphaned(&world, "load", &robot);
    world.registry = Registry::shipped();
    survive(&world);
    assert_eq!(verify(&world.store).statuses(), ["unknown"]);
}

#[test]
fn an_orphan_outlives_many_crashes_and_is_settled_once() {
    let robot = Robot::new("scale", true, Step::Hang);
    let world = World::new().with(robot.clone());
    let attempt = orphaned(&world, "load", &robot);
    for life in 2..=4 {
        let robot = &robot;
        world.life(|_running| async move {
            eventually("it is repeated", || robot.calls() == life).await;
        });
    }
    robot.otherwise(Step::Done);
    survive(&world);
    assert_eq!(robot.attempts(), [attempt; 5]);
    assert_eq!(verify(&world.store).statuses(), ["success"]);
}

#[test]
fn a_restart_of_governance_leaves_no_orphan_behind() {
    let robot = Robot::new("wipe", false, Step::Hang);
    let world = World::new().with(robot.clone());
    orphaned(&world, "disk", &robot);
    world.store.appends_gate.close();
    runtime().block_on(async {
        let running = world.start();
        eventually("the outcome is being sealed", || world.store.appends_gate.waiting() == 1).await;
        // The look that took the orphan on is cut short here, and must let go of it.
        world.store.plan(crate::fault_store::Fault::Lost);
        assert!(running.engine.supervisor().restart("governance_sup"));
        world.store.appends_gate.open();
        settled(&world, 1).await;
        running.end(&world).await;
    });
    assert_eq!(verify(&world.store).statuses(), ["unknown"]);
}

#[test]
fn a_call_to_a_model_that_nobody_settles_is_given_up_as_unknown() {
    let world = World::new();
    world.life(|running| async move {
        running.admit([1]).await;
        let reserved = running.decide(tenant(1), reserve()).await;
        // As a kill has it: what would give it back does not run.
        std::mem::forget(reserved);
    });
    assert_eq!(world.store.unsettled(10).unwrap().len(), 1);
    survive(&world);
    assert_eq!(verify(&world.store).statuses(), ["unknown"]);
}

#[test]
fn a_call_to_a_model_whose_caller_has_left_is_given_back() {
    let world = World::new();
    runtime().block_on(async {
        let running = world.start();
        running.admit([1]).await;
        let attempt = running.decide(tenant(1), reserve()).await.receipt.id;
        settled(&world, 1).await;
        let state = running.engine.state(&tenant(1)).await.unwrap();
        assert!(state.reservations().all(|open| open != attempt));
        running.end(&world).await;
    });
    assert_eq!(verify(&world.store).statuses(), ["error"]);
}

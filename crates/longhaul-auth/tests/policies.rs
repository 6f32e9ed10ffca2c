//! Policies as people write them, asked as a server asks.

#![allow(clippy::unwrap_used, reason = "a failed expectation ends the test")]

use std::sync::Arc;

use longhaul_auth::policy::{ApiFacts, Decider, Policies, Resource, Roles};
use longhaul_auth::{Identity, Principal};
use longhaul_core::Timestamp;

const NOW: Timestamp = Timestamp::from_micros(1_795_316_400_000_000);

fn roles() -> Roles {
    let all = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Roles::predefined(&[
        ApiFacts {
            label: "clouddeploy".into(),
            read: all(&["clouddeploy.operations.get", "clouddeploy.operations.list"]),
            operate: all(&["clouddeploy.operations.cancel", "clouddeploy.releases.create"]),
            administer: all(&["clouddeploy.operations.delete"]),
        },
        ApiFacts {
            label: "dataproc".into(),
            read: all(&["dataproc.operations.get"]),
            operate: all(&["dataproc.operations.cancel"]),
            administer: all(&["dataproc.operations.delete"]),
        },
    ])
}

fn decider(text: &str) -> Decider {
    Decider::new(Policies::parse(text, roles()).unwrap(), 1_000)
}

fn who(member: &str) -> Arc<Identity> {
    Arc::new(Identity::of(Principal::from_member(member).unwrap()))
}

fn asks(decider: &Decider, who: &Arc<Identity>, permission: &str, parent: &str) -> bool {
    let name = match parent {
        "" => "operations/o".to_owned(),
        parent => format!("{parent}/operations/o"),
    };
    let resource = Resource {
        name: &name,
        parent,
        kind: "clouddeploy.googleapis.com/Operation",
        service: "clouddeploy.googleapis.com",
    };
    let first = decider.allows(who, permission, &resource, None, NOW);
    // What is remembered must say the same.
    assert_eq!(decider.allows(who, permission, &resource, None, NOW), first);
    first
}

const CANCEL: &str = "clouddeploy.operations.cancel";
const GET: &str = "clouddeploy.operations.get";

#[test]
fn a_policy_holds_for_everything_below_and_nothing_beside() {
    let decider = decider(
        "
policies:
- resource: projects/p
  bindings: [{role: roles/clouddeploy.viewer, members: ['user:ann@example.com']}]
- resource: //clouddeploy.googleapis.com/projects/p/locations/l
  bindings: [{role: roles/clouddeploy.operator, members: ['user:ann@example.com']}]
- resource: projects/p/locations/k/operations/o
  bindings: [{role: roles/clouddeploy.operator, members: ['user:ann@example.com']}]
",
    );
    let ann = who("user:ann@example.com");
    assert!(asks(&decider, &ann, GET, "projects/p"));
    assert!(asks(&decider, &ann, GET, "projects/p/locations/l"));
    assert!(!asks(&decider, &ann, CANCEL, "projects/p"));
    assert!(asks(&decider, &ann, CANCEL, "projects/p/locations/l"));
    assert!(!asks(&decider, &ann, CANCEL, "projects/p/locations/ll"));
    assert!(asks(&decider, &ann, CANCEL, "projects/p/locations/k"));
    assert!(!asks(&decider, &ann, GET, "projects/q"));
    assert!(!asks(&decider, &ann, GET, ""));
    assert!(!asks(&decider, &who("user:bob@example.com"), GET, "projects/p"));
    assert!(!asks(&decider, &who("serviceAccount:ann@example.com"), GET, "projects/p"));
}

#[test]
fn every_kind_of_member_is_found_and_no_other() {
    let decider = decider(
        "
groups:
  ops@example.com: ['user:ann@example.com', 'group:night@example.com']
  group:night@example.com: ['serviceAccount:bot@p.iam.gserviceaccount.com', 'domain:night.example']
policies:
- {resource: projects/group, bindings: [{role: roles/viewer, members: ['group:ops@example.com']}]}
- {resource: projects/domain, bindings: [{role: roles/viewer, members: ['domain:example.com']}]}
- {resource: projects/set, bindings: [{role: roles/viewer, members: ['principalSet://pool/group/x']}]}
- {resource: projects/one, bindings: [{role: roles/viewer, members: ['principal://pool/subject/s']}]}
- {resource: projects/all, bindings: [{role: roles/viewer, members: ['allAuthenticatedUsers']}]}
",
    );
    let mut told = Identity::of(Principal::from_member("principal://pool/subject/s").unwrap());
    told.sets = vec![Arc::from("principalSet://pool/group/x")].into();
    let mut grouped = Identity::of(Principal::from_member("user:zoe@else.example").unwrap());
    grouped.groups = vec![Arc::from("Ops@example.com")].into();
    let people = [
        (who("user:ann@example.com"), ["group", "domain", "all"].as_slice()),
        (who("serviceAccount:bot@p.iam.gserviceaccount.com"), &["group", "all"]),
        (who("user:eve@night.example"), &["group", "all"]),
        (Arc::new(told), &["set", "one", "all"]),
        (Arc::new(grouped), &["group", "all"]),
        (Arc::new(Identity::anonymous()), &[]),
    ];
    for (person, places) in people {
        for place in ["group", "domain", "set", "one", "all"] {
            let may = asks(&decider, &person, GET, &format!("projects/{place}"));
            assert_eq!(may, places.contains(&place), "{} {place}", person.principal);
        }
    }
}

#[test]
fn a_condition_is_asked_each_time() {
    let decider = decider(
        "
bindings:
- role: roles/clouddeploy.operator
  members: ['user:ann@example.com']
  condition: {title: not after, expression: \"request.time < timestamp('2026-11-22T03:40:00Z') && resource.name.startsWith('projects/p/')\"}
",
    );
    let ann = who("user:ann@example.com");
    let resource = Resource {
        name: "projects/p/locations/l/operations/o",
        parent: "projects/p/locations/l",
        kind: "clouddeploy.googleapis.com/Operation",
        service: "clouddeploy.googleapis.com",
    };
    let late = Timestamp::from_micros(1_795_402_800_000_000 + 86_400_000_000);
    let early = Timestamp::from_micros(1_795_310_000_000_000);
    assert!(decider.allows(&ann, CANCEL, &resource, None, early));
    assert!(!decider.allows(&ann, CANCEL, &resource, None, late));
    assert!(decider.allows(&ann, CANCEL, &resource, None, early));
    let other = Resource { name: "projects/q/operations/o", parent: "projects/q", ..resource };
    assert!(!decider.allows(&ann, CANCEL, &other, None, early));
}

#[test]
fn a_change_of_the_policies_counts_at_once() {
    let yes = "bindings: [{role: roles/owner, members: ['user:ann@example.com']}]";
    let decider = decider(yes);
    let ann = who("user:ann@example.com");
    assert!(asks(&decider, &ann, CANCEL, "projects/p"));
    let before = decider.generation();
    decider.replace(Policies::parse("bindings: []", roles()).unwrap());
    assert!(decider.generation() > before);
    assert!(!asks(&decider, &ann, CANCEL, "projects/p"));
    decider.replace(Policies::parse(yes, roles()).unwrap());
    assert!(asks(&decider, &ann, CANCEL, "projects/p"));
}

#[test]
fn predefined_roles_follow_from_the_apis() {
    let decider = decider(
        "
bindings:
- {role: roles/clouddeploy.viewer, members: ['user:v@x.y']}
- {role: roles/clouddeploy.operator, members: ['user:o@x.y']}
- {role: roles/clouddeploy.admin, members: ['user:a@x.y']}
- {role: roles/editor, members: ['user:e@x.y']}
- {role: roles/longhaul.worker, members: ['user:w@x.y']}
- {role: roles/mine, members: ['user:m@x.y']}
roles:
- {name: roles/mine, title: only this, includedPermissions: [clouddeploy.operations.cancel]}
",
    );
    let wanted = [
        (GET, "voae"),
        ("clouddeploy.releases.create", "oae"),
        (CANCEL, "oaem"),
        ("clouddeploy.operations.delete", "a"),
        ("longhaul.operations.cancelAny", "a"),
        ("dataproc.operations.cancel", "e"),
        ("longhaul.workers.claim", "w"),
    ];
    for (permission, letters) in wanted {
        for letter in "voaewm".chars() {
            let may = asks(&decider, &who(&format!("user:{letter}@x.y")), permission, "projects/p");
            assert_eq!(may, letters.contains(letter), "{permission} {letter}");
        }
    }
}

#[test]
fn a_file_that_is_not_understood_changes_nothing_and_says_why() {
    let refused = [
        ("", "says nothing"),
        ("# later\n", "says nothing"),
        ("bindings: [{role: roles/nothing, members: []}]", "no such role"),
        ("bindings: [{role: roles/viewer, members: [ann]}]", "is no member"),
        ("bindings: [{role: roles/viewer, members: [allUsers]}]", "allAuthenticatedUsers"),
        ("bindings: [{role: roles/viewer, members: [], condition: {expression: 'who'}}]", "who"),
        ("policies: [{resource: 'projects/*', bindings: []}]", "no resource"),
        ("roles: [{name: roles/viewer, includedPermissions: []}]", "predefined"),
        ("roles: [{name: roles/x, includedPermissions: ['*']}]", "no permission"),
        ("groups: {a@b: ['group:b@b'], b@b: ['group:a@b']}", "itself"),
        ("bindngs: []", "bindngs"),
        ("[", ""),
    ];
    for (text, word) in refused {
        let error = Policies::parse(text, roles()).unwrap_err();
        assert!(error.contains(word), "{text}: {error}");
    }
    let json = r#"{"version": 3, "etag": "BwX=", "bindings": [{"role": "roles/viewer", "members": ["user:ann@example.com"]}]}"#;
    let decider = decider(json);
    assert!(asks(&decider, &who("user:ann@example.com"), GET, "projects/p"));
}

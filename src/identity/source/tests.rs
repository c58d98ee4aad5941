//! The task against the embedded server on a real unix socket. The time of day follows tokio's paused clock, so that
//! hours pass in milliseconds.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use tonic::Code;

use super::*;
use crate::clock::Clock;
use crate::config::settings::{Address, IdentitySource};
use crate::spiffe::SpiffeId;
use crate::workload_api::authority::Authority;
use crate::workload_api::server::bind;
use crate::workload_api::server::{Answer as Script, Entry, Given, Handle as Server, serve};

const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

#[derive(Debug)]
struct TestClock {
    base: Mutex<SystemTime>,
    start: Instant,
}

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        *self.base.lock().unwrap() + self.start.elapsed()
    }
}

/// Spoils what the agent would give.
type Spoil = Box<dyn Fn(&mut Given)>;

struct World {
    dir: tempfile::TempDir,
    clock: Arc<TestClock>,
}

impl World {
    fn new() -> Self {
        let base = Mutex::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        Self {
            dir: tempfile::tempdir().unwrap(),
            clock: Arc::new(TestClock {
                base,
                start: Instant::now(),
            }),
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("agent.sock")
    }

    fn authority(&self, trust_domain: &str) -> Authority {
        Authority::new(TrustDomain::new(trust_domain).unwrap(), YEAR, self.clock.now()).unwrap()
    }

    fn serve_ids(&self, ids: &[&str], ttl: Duration) -> Server {
        let entries = ids
            .iter()
            .map(|id| Entry::from(SpiffeId::new(id).unwrap()))
            .collect();
        self.serve_entries(entries, ttl)
    }

    fn serve_entries(&self, entries: Vec<Entry>, ttl: Duration) -> Server {
        let listener = bind(&self.socket(), 0o600).unwrap();
        serve(
            listener,
            self.authority("example.org"),
            entries,
            ttl,
            Arc::clone(&self.clock) as SharedClock,
        )
        .unwrap()
    }

    fn follow(&self) -> Handle {
        self.follow_with(SvidSelect::First, OnDenied::Keep)
    }

    fn follow_with(&self, select: SvidSelect, on_denied: OnDenied) -> Handle {
        self.follow_at(Address::Unix(self.socket()), select, on_denied)
    }

    fn follow_at(&self, address: Address, select: SvidSelect, on_denied: OnDenied) -> Handle {
        let settings = Identity {
            source: IdentitySource::WorkloadApi(address),
            select,
            trust_domain: None,
            on_denied,
        };
        spawn(&settings, Arc::clone(&self.clock) as SharedClock)
    }

    fn jump(&self, by: Duration) {
        *self.clock.base.lock().unwrap() += by;
    }
}

async fn until(handle: &Handle, what: &str, wanted: impl FnMut(&Arc<State>) -> bool) -> Arc<State> {
    let mut state = handle.state.clone();
    let waited = tokio::time::timeout(48 * HOUR, state.wait_for(wanted)).await;
    let Ok(found) = waited else {
        panic!("never came: {what}; the state is {:?}", handle.now())
    };
    Arc::clone(&found.unwrap())
}

async fn ready(handle: &Handle) -> Arc<Material> {
    until(handle, "material", |state| state.material.is_some())
        .await
        .material
        .clone()
        .unwrap()
}

fn web() -> &'static str {
    "spiffe://example.org/web"
}

#[tokio::test(start_paused = true)]
async fn first_svid_then_rotations_without_a_gap() {
    let world = World::new();
    let _server = world.serve_ids(&[web()], HOUR);
    let handle = world.follow();
    let first = ready(&handle).await;
    assert_eq!(first.svid.id.to_string(), web());
    assert_eq!(first.generation, 1);
    assert_eq!(first.bundles.len(), 1);
    let state = until(&handle, "three rotations", |state| {
        assert!(state.material.is_some(), "a gap: {state:?}");
        state.rotations >= 3
    })
    .await;
    let last = state.material.clone().unwrap();
    assert_eq!(last.generation, 4);
    assert_ne!(last.svid.serial, first.svid.serial);
    assert_eq!(state.status, Status::Ready);
    assert!(state.connected && state.last_problem.is_none(), "{state:?}");
    // At half of the life each.
    let passed = world.clock.start.elapsed();
    assert!(passed >= HOUR * 3 / 2 && passed < HOUR * 2, "{passed:?}");
}

#[tokio::test(start_paused = true)]
async fn agent_comes_late_goes_and_comes_back_with_another_socket() {
    let world = World::new();
    let handle = world.follow();
    let state = until(&handle, "unreachable", |s| {
        matches!(s.status, Status::Unreachable { .. })
    })
    .await;
    assert!(
        state.status.to_string().contains("is the agent running"),
        "{}",
        state.status
    );
    tokio::time::sleep(Duration::from_secs(300)).await;
    let server = world.serve_ids(&[web()], HOUR);
    let before = Instant::now();
    let first = ready(&handle).await;
    assert!(
        before.elapsed() <= Duration::from_secs(11),
        "{:?}",
        before.elapsed()
    );

    drop(server);
    let state = until(&handle, "connection lost", |s| !s.connected).await;
    assert_eq!(state.status, Status::Ready);
    assert_eq!(state.material.as_ref().unwrap().generation, 1);
    assert!(state.last_problem.is_some());
    std::fs::remove_file(world.socket()).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let _server = world.serve_ids(&[web()], HOUR);
    let state = until(&handle, "back", |s| s.connected && s.rotations == 1).await;
    assert_ne!(state.material.as_ref().unwrap().svid.serial, first.svid.serial);
    assert_eq!(state.last_problem, None);
}

#[tokio::test(start_paused = true)]
async fn agent_gone_for_good_svid_used_until_it_expires_and_never_after() {
    let world = World::new();
    let server = world.serve_ids(&[web()], HOUR);
    let handle = world.follow();
    let not_after = ready(&handle).await.svid.not_after;
    drop(server);
    until(&handle, "expired", |s| s.material.is_none()).await;
    let late = world.clock.now().duration_since(not_after).unwrap();
    assert!(late < Duration::from_millis(50), "{late:?}");
    assert_eq!(handle.now().status, Status::Expired);
    // Attempts that fail as before do not hide it.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(handle.now().status, Status::Expired);
    assert!(
        handle
            .now()
            .last_problem
            .as_ref()
            .unwrap()
            .contains("is the agent running")
    );
}

#[tokio::test(start_paused = true)]
async fn clock_that_jumps_is_noticed_within_a_second() {
    let world = World::new();
    let server = world.serve_ids(&[web()], HOUR);
    let handle = world.follow();
    ready(&handle).await;
    server.script(Script::Silence);
    world.jump(2 * HOUR);
    let before = Instant::now();
    until(&handle, "expired", |s| s.material.is_none()).await;
    assert!(
        before.elapsed() < Duration::from_secs(1),
        "{:?}",
        before.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn denied_then_issued() {
    let world = World::new();
    let server = world.serve_ids(&[], HOUR);
    let handle = world.follow();
    let state = until(&handle, "denied", |s| s.status == Status::Denied).await;
    assert!(
        state
            .last_problem
            .as_ref()
            .unwrap()
            .contains("registration entry"),
        "{state:?}"
    );
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(handle.now().status, Status::Denied);
    server.add(SpiffeId::new(web()).unwrap().into()).unwrap();
    let before = Instant::now();
    ready(&handle).await;
    assert!(
        before.elapsed() <= Duration::from_secs(11),
        "{:?}",
        before.elapsed()
    );
    assert_eq!(handle.now().last_problem, None);
}

#[tokio::test(start_paused = true)]
async fn denied_while_holding_keeps_until_expiry() {
    let world = World::new();
    let server = world.serve_ids(&[web()], HOUR);
    let handle = world.follow();
    let not_after = ready(&handle).await.svid.not_after;
    server.deny();
    let state = until(&handle, "said", |s| s.last_problem.is_some()).await;
    assert_eq!(state.status, Status::Ready);
    until(&handle, "expired", |s| s.material.is_none()).await;
    assert!(world.clock.now() >= not_after);
    server.rotate().unwrap();
    ready(&handle).await;
}

#[tokio::test(start_paused = true)]
async fn denied_while_holding_withdraws_where_the_settings_say_so() {
    let world = World::new();
    let server = world.serve_ids(&[web()], HOUR);
    let handle = world.follow_with(SvidSelect::First, OnDenied::Withdraw);
    ready(&handle).await;
    server.deny();
    let before = Instant::now();
    let state = until(&handle, "withdrawn", |s| s.material.is_none()).await;
    assert!(before.elapsed() < Duration::from_secs(1));
    assert_eq!(state.status, Status::Denied);
    server.rotate().unwrap();
    assert_eq!(ready(&handle).await.generation, 2);
}

#[tokio::test(start_paused = true)]
async fn bad_federated_bundle_stops_nothing_and_leaves_the_last_good_one() {
    let world = World::new();
    let server = world.serve_ids(&[web()], HOUR);
    let partner = TrustDomain::new("partner.example").unwrap();
    let other = world.authority("partner.example").root().to_vec();
    server.federate(&partner, Some(other)).unwrap();
    let handle = world.follow();
    let good = ready(&handle).await;
    assert_eq!(good.bundles.len(), 2);

    server.federate(&partner, Some(b"rubbish".to_vec())).unwrap();
    let state = until(&handle, "rotated all the same", |s| s.rotations == 1).await;
    assert_eq!(
        state.material.as_ref().unwrap().bundles.get(&partner),
        good.bundles.get(&partner)
    );
    assert!(
        state.last_problem.as_ref().unwrap().contains("partner.example"),
        "{state:?}"
    );
    assert_eq!(state.status, Status::Ready);

    server.federate(&partner, None).unwrap();
    let state = until(&handle, "no longer federated", |s| s.rotations == 2).await;
    assert!(!state.material.as_ref().unwrap().bundles.contains_key(&partner));
    assert_eq!(state.last_problem, None);

    // What was withdrawn does not come back by way of rubbish.
    server.federate(&partner, Some(b"rubbish".to_vec())).unwrap();
    let state = until(&handle, "rubbish again", |s| s.rotations == 3).await;
    assert!(!state.material.as_ref().unwrap().bundles.contains_key(&partner));
}

#[tokio::test(start_paused = true)]
async fn bad_updates_leave_the_last_good_one() {
    let world = World::new();
    let server = world.serve_ids(&[web()], HOUR);
    let handle = world.follow();
    let good = ready(&handle).await;
    let long_ago = world.clock.now() - 24 * HOUR;
    let expired = server
        .authority()
        .issue(&good.svid.id, None, HOUR, long_ago)
        .unwrap();
    let fresh = server.fresh().unwrap().unwrap();
    let defects: Vec<(&str, Spoil)> = vec![
        ("expired", Box::new(move |g| g.svids.svids[0] = expired.clone())),
        ("no SVID", Box::new(|g| g.svids.svids.clear())),
        (
            "cannot be read",
            Box::new(|g| g.svids.svids[0].x509_svid = b"rubbish".to_vec()),
        ),
        (
            "private key",
            Box::new(|g| g.svids.svids[0].x509_svid_key = b"rubbish".to_vec()),
        ),
        ("no certificate", Box::new(|g| g.svids.svids[0].bundle.clear())),
        (
            "bundle",
            Box::new(|g| g.svids.svids[0].bundle = b"rubbish".to_vec()),
        ),
    ];
    for (words, spoil) in defects {
        let held = ready(&handle).await;
        let mut given = fresh.clone();
        spoil(&mut given);
        server.script(Script::Give(Arc::new(given)));
        let state = until(&handle, words, |s| {
            s.last_problem
                .as_ref()
                .is_some_and(|problem| problem.contains(words))
        })
        .await;
        assert_eq!(
            state.material.as_ref().unwrap().generation,
            held.generation,
            "{words}"
        );
        assert_eq!(state.status, Status::Ready, "{words}");
        server.rotate().unwrap();
        let state = until(&handle, "well again", |s| s.last_problem.is_none()).await;
        assert_eq!(
            state.material.as_ref().unwrap().generation,
            held.generation + 1,
            "{words}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn rubbish_with_nothing_in_hand_is_said() {
    let world = World::new();
    let server = world.serve_ids(&[web()], HOUR);
    let mut given = server.fresh().unwrap().unwrap();
    given.svids.svids[0].x509_svid = vec![0xff; 1000];
    server.script(Script::Give(Arc::new(given)));
    let handle = world.follow();
    let state = until(&handle, "refused", |s| matches!(s.status, Status::Refused { .. })).await;
    assert!(state.status.to_string().contains("web"), "{}", state.status);
    server.rotate().unwrap();
    ready(&handle).await;
}

#[tokio::test(start_paused = true)]
async fn hung_agent_is_noticed_by_the_age_of_the_svid() {
    let world = World::new();
    let server = world.serve_ids(&[web()], HOUR);
    let handle = world.follow();
    ready(&handle).await;
    server.script(Script::Silence);
    let state = until(&handle, "said", |s| s.last_problem.is_some()).await;
    let passed = world.clock.start.elapsed();
    assert!(
        passed >= HOUR * 2 / 3 - Duration::from_secs(20) && passed < HOUR * 3 / 4,
        "{passed:?}"
    );
    assert!(
        state.last_problem.as_ref().unwrap().contains("renewed"),
        "{state:?}"
    );
    assert!(state.material.is_some());
    until(&handle, "expired", |s| s.material.is_none()).await;
    // And it is still asked.
    tokio::time::sleep(HOUR).await;
    let before = Instant::now();
    server.rotate().unwrap();
    ready(&handle).await;
    assert!(
        before.elapsed() < Duration::from_secs(60),
        "{:?}",
        before.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn agent_that_never_says_a_word_is_said() {
    let world = World::new();
    let server = world.serve_ids(&[web()], HOUR);
    server.script(Script::Silence);
    let handle = world.follow();
    let state = until(&handle, "silent", |s| {
        matches!(s.status, Status::Unreachable { .. })
    })
    .await;
    assert!(
        state.status.to_string().contains("says nothing"),
        "{}",
        state.status
    );
    server.rotate().unwrap();
    ready(&handle).await;
}

#[tokio::test(start_paused = true)]
async fn dropped_connection_is_made_anew_and_the_same_answer_is_no_news() {
    let world = World::new();
    let server = world.serve_ids(&[web()], HOUR);
    let handle = world.follow();
    ready(&handle).await;
    for _ in 0..5 {
        server.hang_up();
        until(&handle, "lost", |s| !s.connected).await;
        until(&handle, "back", |s| s.connected && s.last_problem.is_none()).await;
    }
    let state = handle.now();
    assert_eq!(
        (state.material.as_ref().unwrap().generation, state.rotations),
        (1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn unavailable_is_passing_and_invalid_argument_is_the_end() {
    let world = World::new();
    let server = world.serve_ids(&[web()], HOUR);
    server.script(Script::Refuse(Code::Unavailable, "starting".to_owned()));
    let handle = world.follow();
    let state = until(&handle, "unavailable", |s| {
        matches!(s.status, Status::Unreachable { .. })
    })
    .await;
    assert!(state.status.to_string().contains("starting"), "{}", state.status);
    server.rotate().unwrap();
    let held = ready(&handle).await;
    server.script(Script::Refuse(Code::InvalidArgument, "no".to_owned()));
    let state = until(&handle, "fatal", |s| matches!(s.status, Status::Fatal { .. })).await;
    assert_eq!(state.material.as_ref().unwrap().generation, held.generation);
    server.rotate().unwrap();
    let state = until(&handle, "expired", |s| s.material.is_none()).await;
    assert!(matches!(state.status, Status::Fatal { .. }), "{state:?}");
}

#[tokio::test]
async fn an_agent_behind_a_tcp_address_is_followed() {
    let world = World::new();
    let _server = world.serve_ids(&[web()], HOUR);
    let door = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = door.local_addr().unwrap();
    let socket = world.socket();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = door.accept().await {
            let mut far = tokio::net::UnixStream::connect(&socket).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    let handle = world.follow_at(Address::Tcp(address), SvidSelect::First, OnDenied::Keep);
    assert_eq!(ready(&handle).await.svid.id.to_string(), web());
}

#[tokio::test(start_paused = true)]
async fn wanted_svid_is_selected_and_its_absence_heals() {
    let id = |path: &str| SpiffeId::new(format!("spiffe://example.org/{path}")).unwrap();
    let entry = |path: &str, hint: &str| Entry {
        id: id(path),
        hint: Some(hint.to_owned()),
    };
    for select in [SvidSelect::Id(id("b")), SvidSelect::Hint("internal".to_owned())] {
        let world = World::new();
        let server = world.serve_entries(vec![entry("a", "external")], HOUR);
        let handle = world.follow_with(select, OnDenied::Keep);
        let state = until(&handle, "selecting", |s| {
            matches!(s.status, Status::Selecting { .. })
        })
        .await;
        assert!(state.connected);
        server.add(entry("b", "internal")).unwrap();
        let material = ready(&handle).await;
        assert_eq!(*material.svid.id, id("b"));
        assert_eq!(material.svids.len(), 2);
        assert_eq!(handle.now().status, Status::Ready);

        // Taken away again: kept until it expires, while bundles are followed.
        let partner = TrustDomain::new("partner.example").unwrap();
        server.remove(&id("b")).unwrap();
        server
            .federate(&partner, Some(world.authority("partner.example").root().to_vec()))
            .unwrap();
        let state = until(&handle, "the new bundle", |s| {
            s.material
                .as_ref()
                .is_some_and(|material| material.bundles.contains_key(&partner))
        })
        .await;
        assert_eq!(state.material.as_ref().unwrap().svid.serial, material.svid.serial);
        assert!(
            state.last_problem.as_ref().unwrap().contains("wanted"),
            "{state:?}"
        );
        until(&handle, "expired", |s| s.material.is_none()).await;
        server.add(entry("b", "internal")).unwrap();
        ready(&handle).await;
    }
}

#[tokio::test(start_paused = true)]
async fn change_of_authority_is_followed() {
    let world = World::new();
    let server = world.serve_ids(&[web()], HOUR);
    let handle = world.follow();
    let first = ready(&handle).await;
    server
        .set_authority(world.authority("example.org"), true)
        .unwrap();
    let state = until(&handle, "both authorities", |s| s.rotations == 1).await;
    let own = |state: &State| {
        state
            .material
            .as_ref()
            .unwrap()
            .bundles
            .values()
            .next()
            .unwrap()
            .authorities
            .len()
    };
    assert_eq!(own(&state), 2);
    let below = world
        .authority("example.org")
        .intermediate(YEAR, world.clock.now())
        .unwrap();
    server.set_authority(below, false).unwrap();
    let state = until(&handle, "one authority", |s| s.rotations == 2).await;
    assert_eq!(own(&state), 1);
    assert_eq!(state.material.as_ref().unwrap().svid.chain.len(), 2);
    assert_ne!(state.material.as_ref().unwrap().bundles, first.bundles);
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_on_after_the_handle_is_dropped() {
    let world = World::new();
    let _server = world.serve_ids(&[web()], HOUR);
    let handle = world.follow();
    ready(&handle).await;
    let mut state = handle.state.clone();
    drop(handle);
    let closed = tokio::time::timeout(Duration::from_secs(1), async {
        while state.changed().await.is_ok() {}
    })
    .await;
    assert!(closed.is_ok());
}

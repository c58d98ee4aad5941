//! A confined process takes over what it was granted at its start. What is beyond that needs a new process, and is refused.

use std::fs;

use super::{ALL, add, config, in_force, inbound, refused, through, write};
use crate::open_connections::Open;
use crate::plain::{Door, connect_unix};
use crate::support::net::free_address;
use crate::world::{Api, InboundSetup, ORDERS, STOREFRONT};

#[test]
fn what_is_beyond_the_grant_is_refused_and_all_else_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let sockets = folder.path().join("sockets");
    fs::create_dir(&sockets).unwrap();
    let (spare, app, out) = (free_address(), Door::open(), Door::open());
    let outbound = |file: &str, name: &str, to: u16| {
        let listen = folder.path().join(file);
        format!(
            "  - {{ name: {name}, listen: 'unix://{}', connect: '127.0.0.1:{to}', peer: ['{ORDERS}'] }}\n",
            listen.display()
        )
    };
    let port = out.addr().port();
    let settings = format!(
        "{}outbound:\n{}",
        inbound("spare", &spare.to_string(), app.addr()),
        outbound("sockets/first.sock", "first", port)
    );
    let scene = InboundSetup {
        policy: Some(ALL),
        settings: &settings,
        ..InboundSetup::default()
    }
    .start_with(Api::start(&[ORDERS]));
    let sidecar = &scene.sidecar;
    let told = sidecar.get("/api/v1/status").unwrap().json()["sandbox"].clone();
    for part in ["landlock_files", "landlock_network"] {
        if told["enforced"][part] != true {
            eprintln!("SKIPPED: this system lacks {part}: {told}");
            return;
        }
    }
    let storefront = scene.api.peer(STOREFRONT);
    let mut steady = Open::through(&scene, &storefront);
    let good = config(sidecar);

    // Beyond it: a port to bind, a port to connect to, a folder for a socket.
    let (elsewhere, other) = (free_address(), Door::open());
    for (text, why) in [
        (
            good.replace(&spare.to_string(), &elsewhere.to_string()),
            format!(
                "restart needed: listener `spare`: binding TCP port {}",
                elsewhere.port()
            ),
        ),
        (
            good.replace(&app.addr().to_string(), &other.addr().to_string()),
            format!("connecting to TCP port {}", other.addr().port()),
        ),
        (
            good.replace("sockets/first.sock", "first.sock"),
            "restart needed: listener `first`: a unix socket in".to_owned(),
        ),
    ] {
        let mark = sidecar.mark();
        write(sidecar, &text);
        refused(sidecar, mark, &why);
        refused(sidecar, mark, "which the sandbox does not allow");
        refused(sidecar, mark, "SIGUSR2");
        assert_eq!(sidecar.metric("svidecar_config_generation"), Some(1.0));
        steady.must_flow();
        connect_unix(&sockets.join("first.sock"));
        through(spare, &app, &storefront);
    }

    // Within it: whatever was named at the start may go and come again.
    let mark = sidecar.mark();
    write(
        sidecar,
        &good.replace(&inbound("spare", &spare.to_string(), app.addr()), ""),
    );
    assert_eq!(in_force(sidecar, mark)["removed"], "spare");
    let mark = sidecar.mark();
    add(sidecar, &inbound("again", &spare.to_string(), app.addr()));
    assert_eq!(in_force(sidecar, mark)["added"], "again");
    through(spare, &app, &storefront);

    let mark = sidecar.mark();
    let (first, second) = (
        outbound("sockets/first.sock", "first", port),
        outbound("sockets/second.sock", "second", port),
    );
    write(sidecar, &good.replace(&first, &second));
    in_force(sidecar, mark);
    connect_unix(&sockets.join("second.sock"));
    assert!(
        !sockets.join("first.sock").exists(),
        "its file goes with the listener"
    );
    steady.must_flow();
}

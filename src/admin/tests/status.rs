//! The state of all: asked for once, and streamed to several.

use super::*;

fn events(text: &str, name: &str) -> Vec<Value> {
    let head = format!("event: {name}\n");
    text.split("\n\n")
        .filter_map(|event| {
            let at = event.find(&head)?;
            let data = event[at..].lines().find_map(|line| line.strip_prefix("data: "))?;
            Some(serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {data}")))
        })
        .collect()
}

#[tokio::test]
async fn a_status_says_how_its_reader_may_make_changes() {
    let folder = tempfile::tempdir().unwrap();
    let token = TokenFile(folder.path().join("token"));
    let tcp = Address::Tcp("127.0.0.1:0".parse().unwrap());
    let unix = Address::Unix(folder.path().join("admin.sock"));
    for (address, token, changes) in [
        (&tcp, None, "none"),
        (&tcp, Some(token.clone()), "token"),
        (&unix, None, "unix"),
        (&unix, Some(token), "unix"),
    ] {
        let running = start_with(address, Kind::Full, token);
        for (query, shown) in [("", 200), ("?connections=0", 0), ("?connections=1000", 1000)] {
            let (status, _, body) = running.get(&format!("/api/v1/status{query}"), LOCAL).await;
            assert_eq!(status, 200, "{body}");
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(body["changes"], changes);
            assert_eq!(body["text"], "}\n");
            assert_eq!(body["connections"]["total"], 1500);
            assert_eq!(body["connections"]["in_handshake_or_closing"], 2);
            assert_eq!(body["connections"]["shown"].as_array().unwrap().len(), shown);
        }
        assert_eq!(running.get("/api/v1/status?connections=1001", LOCAL).await.0, 400);
        running.end().await;
    }
}

async fn listen_to_status(running: &Running, query: &str) -> (Box<dyn Stream>, Value) {
    let mut stream = running.connect().await;
    let request = format!("GET /api/v1/status{query} HTTP/1.1\r\n{STREAM}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut seen = String::new();
    while events(&seen, "status").is_empty() || !seen.ends_with("\n\n\r\n") {
        seen.push_str(&read_until(&mut *stream, "\n\n\r\n").await);
    }
    let first = events(&seen, "status").remove(0);
    (stream, first)
}

#[tokio::test(start_paused = true)]
async fn those_who_listen_share_one_status_a_second_and_get_verdicts_in_between() {
    let running = start_tcp(Kind::Full);
    let (mut first, status) = listen_to_status(&running, "?connections=3").await;
    assert_eq!(status["connections"]["shown"].as_array().unwrap().len(), 3);
    let (mut second, status) = listen_to_status(&running, "?connections=1").await;
    assert_eq!(status["connections"]["shown"].as_array().unwrap().len(), 1);

    let denied = verdict(&DecisionIds::new(1), Verdict::Deny);
    running.state.decisions().record(&denied);
    for stream in [&mut first, &mut second] {
        let seen = read_until(&mut **stream, &denied.id.to_string()).await;
        let decision = format!("event: decision\nid: {}\n", denied.id);
        assert!(seen.contains(&decision), "{seen}");
    }
    // Time passes by itself while all wait.
    let begun = tokio::time::Instant::now();
    let before = running.state.computed.load(Ordering::Relaxed);
    let mut seen = String::new();
    while events(&seen, "status").len() < 5 {
        seen.push_str(&read_until(&mut *first, "event: status").await);
        seen.push_str(&read_until(&mut *first, "\n\n").await);
        read_until(&mut *second, "event: status").await;
    }
    let computed = running.state.computed.load(Ordering::Relaxed) - before;
    let seconds = begun.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let each = computed as f64;
    assert!(each <= seconds + 1.0, "{computed} in {seconds} s");

    drop((first, second));
    // Nobody listens: nothing is computed any more, as soon as that is seen.
    let mut last = usize::MAX;
    loop {
        tokio::time::sleep(3 * feed::PERIOD).await;
        let computed = running.state.computed.load(Ordering::Relaxed);
        if computed == last {
            break;
        }
        last = computed;
    }
    // And it begins anew for the next one.
    let (_, status) = listen_to_status(&running, "").await;
    assert!(status["computed"].as_u64().unwrap() > u64::try_from(last).unwrap());
    running.end().await;
}

#[tokio::test]
async fn a_stream_of_the_status_takes_a_place_among_those_who_listen() {
    let running = start_tcp(Kind::Full);
    let mut listening = Vec::new();
    for _ in 0..MAX_SUBSCRIBERS {
        listening.push(listen_to_status(&running, "").await);
    }
    let (status, _, body) = running.get("/api/v1/status", STREAM).await;
    assert_eq!(status, 503, "{body}");
    assert_eq!(running.get("/api/v1/status", LOCAL).await.0, 200);
    running.end().await;
}

#[tokio::test]
async fn an_explanation_or_why_there_is_none() {
    let running = start_tcp(Kind::Full);
    let ask = "/api/v1/explain?to=orders&from=spiffe%3A%2F%2Fexample.org%2Fa&source=10.1.2.3";
    let (status, _, body) = running.get(ask, LOCAL).await;
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        body,
        json!({ "verdict": "deny", "peer": "spiffe://example.org/a", "source": "10.1.2.3" })
    );
    for (query, error, hint) in [
        ("to=other&from=x", "`to` is `other`", "there is `orders`"),
        ("to=orders", "are needed", "?to=LISTENER"),
        ("to=orders&from=x&source=web", "no IP address", "10.1.2.3"),
    ] {
        let (status, _, body) = running.get(&format!("/api/v1/explain?{query}"), LOCAL).await;
        assert_eq!(status, 400, "{query}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert!(body["error"].as_str().unwrap().contains(error), "{body}");
        assert!(body["hint"].as_str().unwrap().contains(hint), "{body}");
    }
    running.end().await;
}

//! Whatever is done to a log afterwards is found, and the first entry that does not fit is named.

use proptest::prelude::*;

use super::*;

/// A log of some entries with two checkpoints in it, as lines.
fn lines() -> Vec<String> {
    let scene = Scene::new();
    let authority = scene.authority();
    let (log, guard) = scene.start();
    for _ in 0..2 {
        log.sign_with(Some(scene.signer(&authority)));
        for _ in 0..4 {
            let _ = log.record(verdict(denial()));
        }
    }
    drop(guard);
    let lines: Vec<_> = scene.text().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 11);
    lines
}

/// What is said of these lines as a log.
fn said(lines: &[String]) -> Result<Summary, String> {
    let scene = Scene::new();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(scene.path(), text).unwrap();
    scene.verify().map_err(|mismatch| mismatch.to_string())
}

#[track_caller]
fn first_wrong(lines: &[String], line: usize, what: &str) {
    let said = said(lines).unwrap_err();
    assert!(
        said.contains(&format!("audit.jsonl:{line}: ")) && said.contains(what),
        "{said}"
    );
}

/// The chain made anew from here on, as a forger would who knows how the log is made.
fn chained_anew(lines: &mut [String], from: usize) {
    for place in from.max(1)..lines.len() {
        let hash = Hash::of(lines[place - 1].as_bytes());
        let begin = lines[place].find("\"prev\":\"").unwrap() + 8;
        lines[place].replace_range(begin..begin + 64, &hash.to_string());
    }
}

#[test]
fn lines_that_were_changed_taken_out_put_in_or_moved() {
    let good = lines();
    assert_eq!(said(&good).unwrap().checkpoints, 2);
    let mut changed = good.clone();
    changed[2] = changed[2].replace("\"deny\"", "\"allow\"");
    assert_ne!(changed, good);
    first_wrong(&changed, 4, "that line was changed");
    let mut taken_out = good.clone();
    taken_out.remove(3);
    first_wrong(&taken_out, 4, "entry 4 stands where entry 3 is due");
    let mut put_in = good.clone();
    put_in.insert(3, good[2].clone());
    first_wrong(&put_in, 4, "entry 2 stands where entry 3 is due");
    let mut moved = good.clone();
    moved.swap(2, 3);
    first_wrong(&moved, 3, "entry 3 stands where entry 2 is due");
    let mut beginning = good.clone();
    beginning[0] = beginning[0].replace(&"0".repeat(64), &"1".repeat(64));
    first_wrong(&beginning, 1, "entry 0 must have no line before it");
    let mut other = good.clone();
    other[5] = "{}".to_owned();
    first_wrong(&other, 6, "this is no entry of an audit log");
    // What is left when the beginning was removed, as retention does, still fits.
    assert_eq!(said(&good[3..]).unwrap().first, Some(3));
}

#[test]
fn a_forger_who_makes_the_chain_anew_is_found_at_the_next_signature() {
    let good = lines();
    let mut forged = good.clone();
    forged[2] = forged[2].replace("\"deny\"", "\"allow\"");
    chained_anew(&mut forged, 3);
    let checkpoint = 1 + good
        .iter()
        .position(|line| line.contains("\"checkpoint\""))
        .unwrap();
    first_wrong(&forged, checkpoint, "its signature was not made over this place");
    // Without the signatures there is nothing left to hold it to, and that is said.
    forged.retain(|line| !line.contains("\"checkpoint\""));
    for (seq, line) in forged.iter_mut().enumerate() {
        let end = line.find(",\"prev\"").unwrap();
        line.replace_range(..end, &format!("{{\"version\":1,\"seq\":{seq}"));
    }
    chained_anew(&mut forged, 1);
    let summary = said(&forged).unwrap();
    assert_eq!((summary.checkpoints, summary.unsigned), (0, 9));
}

#[test]
fn a_signature_by_another_key_or_about_another_place_is_none() {
    let good = lines();
    let places: Vec<_> = (0..good.len())
        .filter(|place| good[*place].contains("\"checkpoint\""))
        .collect();
    let data = |line: &str| line[line.find("\"data\":").unwrap()..].to_owned();
    // The second signature in place of the first: another key, and another place.
    let mut swapped = good.clone();
    swapped[places[0]] = good[places[0]].replace(&data(&good[places[0]]), &data(&good[places[1]]));
    first_wrong(
        &swapped,
        places[0] + 1,
        "its signature was not made over this place",
    );
    let mut renamed = good.clone();
    renamed[places[0]] = renamed[places[0]].replace(
        "\"spiffe_id\":\"spiffe://example.org/orders\"",
        "\"spiffe_id\":\"spiffe://example.org/admin\"",
    );
    first_wrong(
        &renamed,
        places[0] + 1,
        "its certificate is another than the one it names",
    );
    let mut later = good.clone();
    let begin = later[places[0]].find("\"time\":\"").unwrap() + 8;
    later[places[0]].replace_range(begin..begin + 4, "2099");
    first_wrong(&later, places[0] + 1, "its signature");
}

/// With a bundle at hand nothing but signatures proves anything.
#[test]
fn a_log_that_must_be_signed_is_not_taken_without_signatures() {
    let scene = Scene::new();
    let authority = scene.authority();
    let held_to = |scene: &Scene, authority: &Authority, signers: &[&str]| {
        let bundle = verify::trust_store(
            TrustDomain::new("example.org").unwrap(),
            pem(authority).as_bytes(),
        )
        .unwrap();
        let expectations = Expectations {
            bundle: Some(bundle),
            signers: signers.iter().map(|id| (*id).to_owned()).collect(),
            max_unsigned: Some(verify::MAX_UNSIGNED),
            ..Expectations::default()
        };
        verify(&scene.files(), &expectations).map_err(|mismatch| mismatch.to_string())
    };
    scene.write(3);
    let said = held_to(&scene, &authority, &[]).unwrap_err();
    assert!(said.contains("entries 0 to 3 are not signed"), "{said}");

    let (log, guard) = scene.start();
    log.sign_with(Some(scene.signer(&authority)));
    let _ = log.record(verdict(denial()));
    drop(guard);
    assert!(held_to(&scene, &authority, &[]).is_ok());
    assert!(held_to(&scene, &authority, &["spiffe://example.org/orders"]).is_ok());
    let said = held_to(&scene, &authority, &["spiffe://example.org/payments"]).unwrap_err();
    assert!(said.contains("who may not have signed"), "{said}");

    // A long tail that nobody signed.
    scene.write(2500);
    let said = held_to(&scene, &authority, &[]).unwrap_err();
    assert!(
        said.contains("entries 6 to ") && said.contains("are not signed"),
        "{said}"
    );
}

/// Whoever else holds an SVID of the trust domain is somebody else.
#[test]
fn a_second_signer_is_found() {
    let scene = Scene::new();
    let authority = scene.authority();
    let (log, guard) = scene.start();
    log.sign_with(Some(scene.signer(&authority)));
    let _ = log.record(verdict(denial()));
    log.sign_with(Some(scene.signer_as(&authority, "spiffe://example.org/other")));
    let _ = log.record(verdict(denial()));
    drop(guard);
    let said = scene.verify().unwrap_err().to_string();
    assert!(said.contains("a log has one writer"), "{said}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any byte, anywhere before the last line: another one there is found. In the last line only an anchor shows it.
    #[test]
    fn any_byte_counts(place in 0_usize..10_000, byte in any::<u8>()) {
        static GOOD: std::sync::LazyLock<Vec<String>> = std::sync::LazyLock::new(lines);
        let text: String = GOOD[..GOOD.len() - 1].iter().map(|line| format!("{line}\n")).collect();
        let place = place % text.len();
        let mut bytes = text.into_bytes();
        prop_assume!(bytes[place] != byte);
        bytes[place] = byte;
        bytes.extend_from_slice(GOOD[GOOD.len() - 1].as_bytes());
        bytes.push(b'\n');
        let scene = Scene::new();
        std::fs::write(scene.path(), bytes).unwrap();
        prop_assert!(scene.verify().is_err());
    }

    /// Whatever a file holds, it is read to an answer.
    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let scene = Scene::new();
        std::fs::write(scene.path(), &bytes).unwrap();
        let _ = scene.verify();
        let _ = scene.open();
    }
}

//! Leaves and signing certificates, right and wrong, each by name. `tls::verify` runs [`defective_leaves`] and
//! [`allowed_leaves`] through handshakes in both directions as well.

use proptest::prelude::*;
use rustls::pki_types::CertificateDer;

use super::forge::*;
use super::*;

pub(crate) const ID: &str = "spiffe://example.org/ns/shop/sa/orders";

/// A certificate that must be refused as a leaf.
pub(crate) struct Defective {
    /// What is wrong with it; tests and documentation use these names.
    pub(crate) name: &'static str,
    pub(crate) der: CertificateDer<'static>,
    /// A part of the message.
    pub(crate) message: &'static str,
}

/// Every way in which we know a leaf to be wrong by itself. All are signed properly by `issuer`.
pub(crate) fn defective_leaves(issuer: &str, ca: &Key, key: &Key) -> Vec<Defective> {
    let mut all = Vec::new();
    let mut add = |name, message, forge: Forge| {
        all.push(Defective {
            name,
            der: forge.sign(issuer, ca),
            message,
        });
    };
    let leaf = || Forge::leaf(ID, key);
    names(&mut add, &leaf);
    ids(&mut add, &leaf);
    usages(&mut add, &leaf);
    encodings(&mut add, &leaf);
    keys_and_signatures(&mut add, &leaf);
    let with_trailing_byte = [leaf().sign(issuer, ca).as_ref(), &[0]].concat();
    all.push(Defective {
        name: "trailing byte",
        der: CertificateDer::from(with_trailing_byte),
        message: "1 bytes follow",
    });
    all
}

type Add<'a> = &'a mut dyn FnMut(&'static str, &'static str, Forge);

fn names(add: Add<'_>, leaf: &dyn Fn() -> Forge) {
    let one = "exactly one URI SAN";
    let many = "more than one URI SAN MUST be rejected";
    add("no SAN", one, leaf().without(SAN));
    add(
        "only a DNS SAN",
        one,
        leaf().with_names(&[dns("orders.example.org")]),
    );
    add(
        "two URI SANs",
        many,
        leaf().with_uris(&[ID, "spiffe://example.org/other"]),
    );
    add("the same URI SAN twice", many, leaf().with_uris(&[ID, ID]));
    add(
        "a URI SAN of another scheme beside it",
        many,
        leaf().with_uris(&[ID, "https://example.org/"]),
    );
    add(
        "a URI SAN that is not UTF-8 behind it",
        many,
        leaf().with_names(&[uri(ID), uri(b"spiffe://\xff\xfe")]),
    );
    add(
        "a URI SAN that is not UTF-8 before it",
        many,
        leaf().with_names(&[uri(b"\xff"), uri(ID)]),
    );
    add(
        "an empty URI SAN beside it",
        many,
        leaf().with_names(&[uri(ID), uri("")]),
    );
    add(
        "a constructed URI SAN beside it",
        "no general name",
        leaf().with_names(&[uri(ID), tlv(0xa6, &uri(ID))]),
    );
    add("a second SAN extension", "more than one instance", {
        leaf().with_another(SAN, false, sequence(&[&uri("spiffe://example.org/other")]))
    });
    add("a second SAN extension without URI", "more than one instance", {
        leaf().with_another(SAN, false, sequence(&[&dns("example.org")]))
    });
    add(
        "bytes behind the SAN",
        "bytes follow",
        leaf().with(SAN, false, [sequence(&[&uri(ID)]), vec![5, 0]].concat()),
    );
    add(
        "an empty SAN",
        "holds no name",
        leaf().with(SAN, false, sequence(&[])),
    );
    add(
        "no subject, SAN not critical",
        "MUST be marked as critical if Subject is omitted",
        leaf().subject(""),
    );
}

fn ids(add: Add<'_>, leaf: &dyn Fn() -> Forge) {
    let bad = "no SPIFFE ID";
    let long = format!("spiffe://example.org/{}", "a".repeat(MAX_ID_BYTES + 1 - 21));
    let long_domain = format!("spiffe://{}/a", "d".repeat(256));
    let cases: &[(&str, &str, &[u8])] = &[
        ("no path", "non-root path", b"spiffe://example.org"),
        ("root path", bad, b"spiffe://example.org/"),
        ("trailing slash", bad, b"spiffe://example.org/a/"),
        ("empty segment", bad, b"spiffe://example.org/a//b"),
        ("dot segment", bad, b"spiffe://example.org/./a"),
        ("dot-dot segment", bad, b"spiffe://example.org/a/../b"),
        ("other scheme", bad, b"https://example.org/a"),
        ("no scheme", bad, b"example.org/a"),
        ("uppercase scheme", "must be lowercase", b"SPIFFE://example.org/a"),
        (
            "uppercase trust domain",
            "must be lowercase",
            b"spiffe://Example.org/a",
        ),
        ("no trust domain", bad, b"spiffe:///a"),
        ("percent-encoded path", bad, b"spiffe://example.org/a%2fb"),
        ("percent-encoded trust domain", bad, b"spiffe://example%2eorg/a"),
        ("query", bad, b"spiffe://example.org/a?b=c"),
        ("fragment", bad, b"spiffe://example.org/a#b"),
        ("port", bad, b"spiffe://example.org:8443/a"),
        ("user info", bad, b"spiffe://user@example.org/a"),
        ("other character in trust domain", bad, b"spiffe://exa!mple.org/a"),
        ("IPv6 address", bad, b"spiffe://[::1]/a"),
        ("space", bad, b"spiffe://example.org/a b"),
        ("NUL", bad, b"spiffe://example.org/a\0b"),
        ("line break", bad, b"spiffe://example.org/a\nlevel=info"),
        ("UTF-8 path", bad, "spiffe://example.org/\u{e9}".as_bytes()),
        ("not UTF-8", "not ASCII", b"spiffe://example.org/\xff"),
        ("wildcard", bad, b"spiffe://example.org/*"),
        ("empty URI", bad, b""),
        ("2049 bytes", "2049 bytes", long.as_bytes()),
        ("trust domain of 256 bytes", bad, long_domain.as_bytes()),
    ];
    for (name, message, id) in cases {
        add(name, message, leaf().with_uris(&[id]));
    }
}

fn usages(add: Add<'_>, leaf: &dyn Fn() -> Forge) {
    add(
        "a CA",
        "set the `cA` field to `false`",
        leaf().with_basic_constraints(true, None),
    );
    add(
        "a CA with pathLenConstraint",
        "set the `cA` field to `false`",
        leaf().with_basic_constraints(true, Some(0)),
    );
    add(
        "basic constraints that do not parse",
        "basic constraints",
        leaf().with(BASIC_CONSTRAINTS, true, vec![5, 0]),
    );
    add(
        "no key usage",
        "MUST be set on all SVIDs",
        leaf().without(KEY_USAGE),
    );
    add("key usage not critical", "MUST be marked critical", {
        leaf().with(KEY_USAGE, false, key_usage_bits(DIGITAL_SIGNATURE))
    });
    add(
        "no digitalSignature",
        "MUST set `digitalSignature`",
        leaf().with_key_usage(KEY_ENCIPHERMENT),
    );
    add(
        "empty key usage",
        "MUST set `digitalSignature`",
        leaf().with_key_usage(0),
    );
    add(
        "keyCertSign",
        "sets `keyCertSign`",
        leaf().with_key_usage(DIGITAL_SIGNATURE | KEY_CERT_SIGN),
    );
    add(
        "cRLSign",
        "sets `cRLSign`",
        leaf().with_key_usage(DIGITAL_SIGNATURE | CRL_SIGN),
    );
    add("a second key usage", "more than one instance", {
        leaf().with_another(KEY_USAGE, true, key_usage_bits(DIGITAL_SIGNATURE))
    });
    add(
        "key usage that does not parse",
        "key usage",
        leaf().with(KEY_USAGE, true, vec![5, 0]),
    );
    add("extended key usage that does not parse", "extended key usage", {
        leaf().with(EXTENDED_KEY_USAGE, false, vec![5, 0])
    });
}

fn encodings(add: Add<'_>, leaf: &dyn Fn() -> Forge) {
    add("version 1", "version MUST be 3", leaf().version(1));
    add("version 2", "version MUST be 3", leaf().version(2));
    add(
        "too large",
        "bytes; 16384 are the most",
        leaf().with(UNKNOWN, false, tlv(4, &[0; 16 * 1024])),
    );
    add("two unknown extensions of one kind", "more than one instance", {
        leaf()
            .with(UNKNOWN, false, vec![5, 0])
            .with_another(UNKNOWN, false, vec![5, 0])
    });
}

fn keys_and_signatures(add: Add<'_>, leaf: &dyn Fn() -> Forge) {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1];
    const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    let accepted = "are accepted";
    add("RSA 1024", "RSA of 1024 bits", leaf().spki(rsa_spki(1024)));
    add("RSA 2040", "RSA of 2040 bits", leaf().spki(rsa_spki(2040)));
    add("RSA 16384", "RSA of 16384 bits", leaf().spki(rsa_spki(16384)));
    add(
        "RSA-PSS key",
        accepted,
        leaf().spki(spki(&[RSA, &[10]].concat(), &[], &[0; 270])),
    );
    add(
        "DSA",
        accepted,
        leaf().spki(spki(
            &[0x2a, 0x86, 0x48, 0xce, 0x38, 4, 1],
            &[],
            &tlv(2, &[1; 128]),
        )),
    );
    add(
        "EC secp256k1",
        accepted,
        leaf().spki(spki(EC, &tlv(6, &[0x2b, 0x81, 4, 0, 10]), &[4; 65])),
    );
    add(
        "EC P-224",
        accepted,
        leaf().spki(spki(EC, &tlv(6, &[0x2b, 0x81, 4, 0, 33]), &[4; 57])),
    );
    add(
        "EC without a named curve",
        accepted,
        leaf().spki(spki(EC, &[0x30, 0], &[4; 65])),
    );
    add(
        "Ed448",
        accepted,
        leaf().spki(spki(&[0x2b, 0x65, 0x71], &[], &[7; 57])),
    );
    add(
        "X25519",
        accepted,
        leaf().spki(spki(&[0x2b, 0x65, 0x6e], &[], &[7; 32])),
    );
    add(
        "ECDSA with SHA-1",
        accepted,
        leaf().algorithms(ECDSA_SHA1, ECDSA_SHA1),
    );
    add("RSA with SHA-1", accepted, leaf().algorithms(RSA_SHA1, RSA_SHA1));
    add("RSA with MD5", accepted, leaf().algorithms(RSA_MD5, RSA_MD5));
    add(
        "RSA-PSS with SHA-1",
        "RSA-PSS with a weak hash",
        leaf().algorithms(PSS_SHA1, PSS_SHA1),
    );
    add("algorithms that differ", "same algorithm identifier", {
        leaf().algorithms(ED25519, &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2])
    });
}

/// A certificate that must be accepted as a leaf.
pub(crate) struct Allowed {
    /// What the standard leaves to its issuer; tests and documentation use these names.
    pub(crate) name: &'static str,
    pub(crate) id: String,
    pub(crate) der: CertificateDer<'static>,
}

/// What the standard leaves to the issuer of a leaf. All are signed properly by `issuer`.
pub(crate) fn allowed_leaves(issuer: &str, ca: &Key, key: &Key) -> Vec<Allowed> {
    let leaf = || Forge::leaf(ID, key);
    let other_names = [dns("a.example.org"), uri(ID), dns("b"), tlv(0x87, &[10, 0, 0, 1])];
    let usage = DIGITAL_SIGNATURE | KEY_ENCIPHERMENT | KEY_AGREEMENT;
    let extensions = [
        ("no basic constraints", leaf().without(BASIC_CONSTRAINTS)),
        ("basic constraints", leaf().with_basic_constraints(false, None)),
        ("keyEncipherment and keyAgreement", leaf().with_key_usage(usage)),
        ("no extended key usage", leaf().without(EXTENDED_KEY_USAGE)),
        ("critical extended key usage", leaf().critical(EXTENDED_KEY_USAGE)),
        ("other SANs beside it", leaf().with_names(&other_names)),
        ("no subject, SAN critical", leaf().subject("").critical(SAN)),
        (
            "unknown extension, not critical",
            leaf().with(UNKNOWN, false, vec![5, 0]),
        ),
    ];
    let longest = format!("spiffe://example.org/{}", "a".repeat(MAX_ID_BYTES - 21));
    assert_eq!(longest.len(), MAX_ID_BYTES);
    let ids = [
        ("2048 bytes", longest),
        (
            "trust domain of 255 bytes",
            format!("spiffe://{}/a", "d".repeat(255)),
        ),
        ("every character", "spiffe://a-b_c.0/AZaz09-_./...".to_owned()),
        ("IPv4 address as trust domain", "spiffe://10.0.0.1/a".to_owned()),
        (
            "DNS name as trust domain",
            "spiffe://shop.example.com/a".to_owned(),
        ),
    ];
    let extensions = extensions.map(|(name, forge)| (name, ID.to_owned(), forge));
    let ids = ids.map(|(name, id)| (name, id.clone(), Forge::leaf(&id, key)));
    extensions
        .into_iter()
        .chain(ids)
        .map(|(name, id, forge)| Allowed {
            name,
            id,
            der: forge.sign(issuer, ca),
        })
        .collect()
}

#[test]
fn defective_leaves_are_refused() {
    let (ca, key) = (Key::p256(), Key::p256());
    for defective in defective_leaves("ca", &ca, &key) {
        let Err(error) = check_leaf(&defective.der) else {
            panic!("{}: accepted", defective.name)
        };
        let error = error.to_string();
        assert!(error.contains(defective.message), "{}: {error}", defective.name);
        assert!(!error.contains(char::is_control), "{}: {error:?}", defective.name);
        assert!(error.len() < 600, "{}: {error}", defective.name);
    }
}

#[test]
fn a_leaf_says_what_it_is() {
    let key = Key::p256();
    let leaf = check_leaf(&Forge::leaf(ID, &key).sign("ca", &key)).unwrap();
    assert_eq!(leaf.id.to_string(), ID);
    assert_eq!(leaf.not_before, now() - HOUR);
    assert_eq!(leaf.not_after, now() + HOUR);
    assert_eq!(leaf.serial, "8f01");
    let key_hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &key.spki());
    assert_eq!(leaf.key_hash, key_hash.as_ref());
    assert_eq!(leaf.key_type, "EC P-256");
    assert!(leaf.may_serve() && leaf.may_connect());
}

#[test]
fn every_accepted_key_has_its_name() {
    let ca = Key::p256();
    let spki_of = |key: &Key| key.spki();
    let cases = [
        ("EC P-256", spki_of(&Key::p256())),
        ("EC P-384", spki_of(&Key::p384())),
        ("EC P-521", spki_of(&Key::p521())),
        ("Ed25519", spki_of(&Key::ed25519())),
        ("RSA 2048", rsa_spki(2048)),
        ("RSA 3072", rsa_spki(3072)),
        ("RSA 8192", rsa_spki(8192)),
    ];
    for (name, spki) in cases {
        let der = Forge::leaf(ID, &ca).spki(spki).sign("ca", &ca);
        assert_eq!(check_leaf(&der).unwrap().key_type, name);
    }
}

#[test]
fn what_the_standard_allows_is_accepted() {
    let (ca, key) = (Key::p256(), Key::p256());
    for allowed in allowed_leaves("ca", &ca, &key) {
        match check_leaf(&allowed.der) {
            Ok(leaf) => assert_eq!(leaf.id.to_string(), allowed.id, "{}", allowed.name),
            Err(error) => panic!("{}: {error}", allowed.name),
        }
    }
}

#[test]
fn a_certificate_may_be_so_large_and_no_larger() {
    // Whose signatures all have one length.
    let key = Key::ed25519();
    let padded = |bytes: usize| {
        Forge::leaf(ID, &key)
            .with(UNKNOWN, false, vec![0; bytes])
            .sign("ca", &key)
    };
    let most = MAX_CERTIFICATE_BYTES - (padded(0x1000).len() - 0x1000);
    assert_eq!(padded(most).len(), MAX_CERTIFICATE_BYTES);
    assert!(check_leaf(&padded(most)).is_ok());
    let found = MAX_CERTIFICATE_BYTES + 1;
    assert_eq!(
        check_leaf(&padded(most + 1)),
        Err(LeafError::from(Defect::TooLarge { found }))
    );
}

#[test]
fn validity_may_begin_before_1970() {
    let key = Key::p256();
    for begin in [UNIX_EPOCH - 8 * HOUR, UNIX_EPOCH, UNIX_EPOCH + 8 * HOUR] {
        let leaf = check_leaf(&Forge::leaf(ID, &key).valid(begin, now()).sign("ca", &key)).unwrap();
        assert_eq!((leaf.not_before, leaf.not_after), (begin, now()));
    }
}

/// As deny lists name it.
#[test]
fn a_serial_number_is_told_without_its_sign_byte() {
    let key = Key::p256();
    for (bytes, told) in [
        (&[0x00][..], "00"),
        (&[0x01], "01"),
        (&[0x00, 0x80], "80"),
        (&[0x7f, 0x00], "7f00"),
        (&[0x00, 0x8f, 0x01], "8f01"),
    ] {
        let leaf = check_leaf(&Forge::leaf(ID, &key).serial(bytes).sign("ca", &key)).unwrap();
        assert_eq!(leaf.serial, told);
    }
}

#[test]
fn a_long_name_is_cut_and_says_so() {
    let name = |length| shown(&vec![b'a'; length]);
    assert_eq!(name(256), "a".repeat(256));
    assert_eq!(name(257), format!("{}…", "a".repeat(256)));
    assert_eq!(shown(b"a\x1b\xff"), "a\\x1b\\xff");
}

#[test]
fn another_version_is_told() {
    let key = Key::p256();
    for version in [1, 2] {
        let found = u64::from(version);
        assert_eq!(
            check_leaf(&Forge::leaf(ID, &key).version(version).sign("ca", &key)),
            Err(LeafError::from(Defect::NotVersion3 { found }))
        );
    }
}

#[test]
fn extended_key_usage_is_told_apart_by_side() {
    let key = Key::p256();
    let sides = |forge: Forge| {
        let leaf = check_leaf(&forge.sign("ca", &key)).unwrap();
        (leaf.may_serve(), leaf.may_connect())
    };
    assert_eq!(sides(Forge::leaf(ID, &key)), (true, true));
    assert_eq!(
        sides(Forge::leaf(ID, &key).without(EXTENDED_KEY_USAGE)),
        (true, true)
    );
    assert_eq!(sides(Forge::leaf(ID, &key).server_only()), (true, false));
    assert_eq!(sides(Forge::leaf(ID, &key).client_only()), (false, true));
    assert_eq!(sides(Forge::leaf(ID, &key).any_usage()), (false, false));
}

#[test]
fn signing_certificates_are_cas_that_may_sign() {
    let key = Key::p256();
    let ca = || Forge::ca("ca", &key);
    // What is accepted in both roles.
    let accepted = [
        ("plain", ca()),
        (
            "with its trust domain's ID",
            ca().with_uris(&["spiffe://example.org"]),
        ),
        ("with another URI", ca().with_uris(&["https://pki.example.org/"])),
        ("with path length", ca().with_basic_constraints(true, Some(1))),
    ];
    for (name, forge) in accepted {
        let der = forge.self_signed(&key);
        let want = Ok(Validity {
            not_before: now() - 24 * HOUR,
            not_after: now() + 24 * HOUR,
        });
        assert_eq!(check_intermediate(&der), want, "{name}");
        assert_eq!(check_authority(&der), want, "{name}");
    }

    // The root of an existing PKI may lack key usage; what a peer sends may not.
    let der = ca().without(KEY_USAGE).self_signed(&key);
    assert_eq!(check_intermediate(&der), Err(CaError::NoKeyUsage));
    assert!(check_authority(&der).is_ok());

    // What is refused in both roles, with a part of the message.
    let refused = [
        (
            "no basic constraints",
            "set the `cA` field to `true`",
            ca().without(BASIC_CONSTRAINTS),
        ),
        (
            "not a CA",
            "set the `cA` field to `true`",
            ca().with_basic_constraints(false, None),
        ),
        (
            "no keyCertSign",
            "MUST set `keyCertSign`",
            ca().with_key_usage(DIGITAL_SIGNATURE | CRL_SIGN),
        ),
        (
            "ID with a path",
            "MUST NOT have a path component",
            ca().with_uris(&[ID]),
        ),
        (
            "ID and another URI",
            "has 2",
            ca().with_uris(&["spiffe://example.org", "https://example.org/"]),
        ),
        (
            "ID that is none",
            "is no SPIFFE ID",
            ca().with_uris(&["spiffe://example.org:80"]),
        ),
        (
            "ID in capitals",
            "must be lowercase",
            ca().with_uris(&["SPIFFE://example.org"]),
        ),
        (
            "a SAN that does not parse",
            "does not parse",
            ca().with(SAN, false, vec![5, 0]),
        ),
        ("weak key", "RSA of 1024 bits", ca().spki(rsa_spki(1024))),
        (
            "weak signature",
            "are accepted",
            ca().algorithms(RSA_SHA1, RSA_SHA1),
        ),
        ("version 1", "version MUST be 3", ca().version(1)),
    ];
    for (name, message, forge) in refused {
        let der = forge.self_signed(&key);
        for error in [
            check_intermediate(&der).unwrap_err(),
            check_authority(&der).unwrap_err(),
        ] {
            assert!(error.to_string().contains(message), "{name}: {error}");
        }
    }
}

#[test]
fn the_path_length_is_read() {
    let key = Key::p256();
    let ca = |path_len| {
        Forge::ca("ca", &key)
            .with_basic_constraints(true, path_len)
            .self_signed(&key)
    };
    assert_eq!(path_len(&ca(None)), Ok(None));
    assert_eq!(path_len(&ca(Some(0))), Ok(Some(0)));
    assert_eq!(path_len(&ca(Some(3))), Ok(Some(3)));
}

#[test]
fn every_prefix_of_a_certificate_is_refused() {
    let key = Key::p256();
    let der = Forge::leaf(ID, &key).sign("ca", &key);
    for end in 0..der.len() {
        assert!(check_leaf(&der[..end]).is_err(), "{end}");
    }
    let problem = |der: &[u8]| check_leaf(der).unwrap_err().to_string();
    assert!(problem(&der[..1]).contains("it is cut short"));
    // What the parser says of it.
    let mut set = der.to_vec();
    set[0] = 0x31;
    assert!(problem(&set).contains("Unexpected Tag"), "{}", problem(&set));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = (check_leaf(&bytes), check_intermediate(&bytes), check_authority(&bytes), path_len(&bytes));
    }

    #[test]
    fn what_it_accepts_is_a_canonical_id(id in "spiffe://[a-zA-Z.%:@-]{0,12}(/[a-zA-Z0-9._%?#*-]{0,8}){0,4}") {
        let key = Key::p256();
        if let Ok(leaf) = check_leaf(&Forge::leaf(&id, &key).sign("ca", &key)) {
            prop_assert_eq!(leaf.id.to_string(), id);
            prop_assert!(leaf.id.path().len() > 1);
        }
    }
}

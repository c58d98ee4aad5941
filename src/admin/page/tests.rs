//! The page keeps to what its content security policy allows, and every file it asks for is served.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::*;

fn page() -> &'static str {
    asset("/").unwrap().body
}

fn scripts() -> impl Iterator<Item = &'static Asset> {
    ASSETS.iter().filter(|asset| asset.content_type == SCRIPT)
}

/// What stands between the marks, wherever they do.
fn between<'t>(text: &'t str, before: &'t str, after: char) -> impl Iterator<Item = &'t str> {
    text.split(before)
        .skip(1)
        .filter_map(move |rest| Some(rest.split_once(after)?.0))
}

#[test]
fn every_file_is_served_under_its_name_and_asked_for() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/page");
    let files: BTreeSet<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".rs") && name != "index.html")
        .map(|name| format!("/{name}"))
        .collect();
    let served: BTreeSet<String> = ASSETS.iter().map(|asset| asset.path.to_owned()).collect();
    let asked: BTreeSet<String> = scripts()
        .flat_map(|script| between(script.body, "from \"./", '"'))
        .chain(between(page(), "src=\"/", '"'))
        .chain(between(page(), "rel=\"stylesheet\" href=\"/", '"'))
        .map(|name| format!("/{name}"))
        .collect();
    assert_eq!(asked, files);
    assert_eq!(served, files.into_iter().chain(["/".to_owned()]).collect());
}

#[test]
fn nothing_is_inline_and_nothing_comes_from_elsewhere() {
    let words = page().to_ascii_lowercase();
    for mark in [
        "style=",
        "<style",
        "<script>",
        " onclick",
        " onload",
        "javascript:",
    ] {
        assert!(!words.contains(mark), "{mark}");
    }
    for asset in &ASSETS {
        for (mark, allowed) in [
            // The names of XML's languages are no addresses.
            ("http://", "http://www.w3.org/"),
            ("https://", "none"),
            ("@import", "none"),
            ("url(", "none"),
        ] {
            let strange = asset.body.match_indices(mark).find(|(at, _)| {
                let rest = asset.body.get(*at..).unwrap();
                !rest.starts_with(allowed)
            });
            assert!(strange.is_none(), "{}: {strange:?}", asset.path);
        }
    }
}

/// A peer's name must never become markup or code.
#[test]
fn text_becomes_text_alone() {
    for script in scripts() {
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "DOMParser",
            "createContextualFragment",
            "setHTMLUnsafe",
            "\"style\"",
        ] {
            assert!(!script.body.contains(way), "{}: {way}", script.path);
        }
    }
}

#[test]
fn the_elements_that_scripts_look_for_are_on_the_page() {
    let known: BTreeSet<&str> = between(page(), " id=\"", '"').collect();
    let looked_for: BTreeSet<&str> = scripts()
        .flat_map(|script| between(script.body, "$(\"", '"'))
        // Made by a script.
        .filter(|id| !["decision-ask"].contains(id))
        .collect();
    assert!(looked_for.len() > 50, "{looked_for:?}");
    let missing: Vec<_> = looked_for.difference(&known).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let all = between(page(), " id=\"", '"').count();
    assert_eq!(all, known.len(), "an id that is there twice");
}

#[test]
fn without_scripts_it_says_where_the_answers_are() {
    let (_, rest) = page().split_once("<noscript>").unwrap();
    let (part, _) = rest.split_once("</noscript>").unwrap();
    for path in ["/api/v1/status", "/api/v1/decisions", "/readyz", "/metrics"] {
        assert!(part.contains(&format!("href=\"{path}\"")), "{path}: {part}");
    }
}

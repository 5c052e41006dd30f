//! Which addresses of remotes are taken, what they mean, and what of them may be shown.
#![allow(clippy::unwrap_used, missing_docs)]

use agent_trace_sync::address::{Plaintext, RemoteUrl, ServiceUrl, Slug, has_credentials, shown};
use agent_trace_sync::limits::{SLUG_BYTES_MAX, URL_BYTES_MAX};
use proptest::prelude::*;

fn service(url: &str) -> ServiceUrl {
    match RemoteUrl::parse(url, Plaintext::Anywhere) {
        Ok(RemoteUrl::Service(service)) => service,
        other => panic!("{url}: {other:?}"),
    }
}

fn refused(url: &str, plaintext: Plaintext) -> String {
    match RemoteUrl::parse(url, plaintext) {
        Err(error) => error.message().to_owned(),
        Ok(taken) => panic!("{url} was taken as {taken:?}"),
    }
}

#[test]
fn folders_are_absolute() {
    for (url, valid) in [
        ("file:///srv/team", true),
        ("FILE:///srv/team", true),
        ("file:///with%20space", true),
        ("file:///a@b?c#d", true),
        ("file://relative", false),
        ("file://", false),
        ("file:///nul%00", false),
        ("file:///bad%zz", false),
        ("file:///cut%2", false),
        ("/srv/team", false),
        ("", false),
    ] {
        assert_eq!(RemoteUrl::parse(url, Plaintext::Loopback).is_ok(), valid, "{url}");
    }
    let decoded = RemoteUrl::parse("file:///with%20space", Plaintext::Loopback).unwrap();
    assert_eq!(decoded, RemoteUrl::Folder("/with space".into()));
}

#[test]
fn services_have_one_canonical_form() {
    let check = |url: &str, canonical: &str, base: &str| {
        let service = service(url);
        assert_eq!((service.to_string().as_str(), service.base_url().as_str()), (canonical, base), "{url}");
        assert_eq!((service.org().as_str(), service.project().as_str()), ("o", "p"), "{url}");
        assert_eq!(RemoteUrl::Service(service).name(), canonical);
    };
    check("https://h.example/o/p", "https://h.example/o/p", "https://h.example");
    check("  https://h.example/o/p/ ", "https://h.example/o/p", "https://h.example");
    check("HTTPS://H.Example:443/o/p", "https://h.example/o/p", "https://h.example");
    check("https://h.example:8443/o/p?token=x", "https://h.example:8443/o/p", "https://h.example:8443");
    check("https://h.example/o/p#part", "https://h.example/o/p", "https://h.example");
    check("https://h.example/at/o/p", "https://h.example/at/o/p", "https://h.example/at/o/p");
    check("https://h.example/AT/o/p/", "https://h.example/at/o/p", "https://h.example/at/o/p");
    check("http://127.0.0.1:5000/o/p", "http://127.0.0.1:5000/o/p", "http://127.0.0.1:5000");
    check("https://[2001:DB8::1]:1/o/p", "https://[2001:db8::1]:1/o/p", "https://[2001:db8::1]:1");
    check("https://bücher.example/o/p", "https://xn--bcher-kva.example/o/p", "https://xn--bcher-kva.example");
    let two_parts = service("https://h/at/p");
    assert_eq!((two_parts.org().as_str(), two_parts.is_gateway()), ("at", false));
    assert!(service("https://h/at/o/p").is_gateway());
}

#[test]
fn what_is_no_project_of_a_service_is_refused_with_the_grammar() {
    for url in [
        "https://h",
        "https://h/",
        "https://h/o",
        "https://h/o/",
        "https://h/o/p/q",
        "https://h/o/p//",
        "https://h//o/p",
        "https://h/at/o/p/q",
        "https://h/on/o/p",
        "https:///o/p",
        "https://",
        "https:///h/o/p",
        "https://h:99999/o/p",
        "https://h:0/o/p",
        "https://h:x/o/p",
        "https://[::1/o/p",
        "https://h h/o/p",
        "https://h\\o/o/p",
        "https://h/o/p\u{1b}",
        "ftp://h/o/p",
        "ssh://h/o/p",
        "ftp://bucket/prefix",
        "h.example/o/p",
        "https:h/o/p",
    ] {
        let message = refused(url, Plaintext::Anywhere);
        assert!(message.contains("`https://<host>[:port]/<org>/<project>`"), "{url}: {message}");
    }
    for url in [
        "https://h/O/p",
        "https://h/o/-p",
        "https://h/o/.",
        "https://h/../p",
        "https://h/%61/p",
        "https://h/o/pé",
    ] {
        assert!(refused(url, Plaintext::Anywhere).contains("lower-case letters"), "{url}");
    }
    let long = format!("https://h/o/p?{}", "x".repeat(URL_BYTES_MAX));
    assert!(refused(&long, Plaintext::Anywhere).contains("too long"));
}

#[test]
fn slugs_have_1_to_64_characters() {
    for (count, valid) in [
        (0, false),
        (1, true),
        (SLUG_BYTES_MAX - 1, true),
        (SLUG_BYTES_MAX, true),
        (SLUG_BYTES_MAX + 1, false),
    ] {
        assert_eq!(Slug::parse(&"a".repeat(count)).is_some(), valid, "{count}");
    }
}

#[test]
fn http_goes_to_this_machine_only_unless_asked_for() {
    for host in [
        "localhost",
        "LOCALHOST:80",
        "127.0.0.1",
        "127.9.9.9:81",
        "127.1",
        "[::1]",
        "[::1]:5000",
        "[::ffff:127.0.0.1]",
    ] {
        let url = format!("http://{host}/o/p");
        let Ok(RemoteUrl::Service(service)) = RemoteUrl::parse(&url, Plaintext::Loopback) else {
            panic!("{url}")
        };
        assert!(!service.is_insecure(), "{url}");
    }
    for host in [
        "h.example",
        "localhost.example",
        "xlocalhost",
        "0.0.0.0",
        "128.0.0.1",
        "[::2]",
        "[::ffff:128.0.0.1]",
        "10.0.0.1",
    ] {
        let url = format!("http://{host}/o/p");
        assert!(refused(&url, Plaintext::Loopback).contains("expected `https`"), "{url}");
        assert!(service(&url).is_insecure(), "{url}");
        assert!(!service(&format!("https://{host}/o/p")).is_insecure());
    }
}

#[test]
fn credentials_are_refused_and_never_repeated() {
    for url in [
        "https://user:hunter2@h/o/p",
        "https://hunter2@h/o/p",
        "https://user:hunter2@h",
        "https://a:hunter2@b@h/o/p",
        "https://user:hunter2/x@h/o/p",
        "https://user:hunter2?x@h/o/p",
        "https://user:hunter2#x@h/o/p",
        "http://hunter2@localhost/o/p",
        "ftp://user:hunter2@h/o/p",
        "user:hunter2@h/o/p",
        "https://h/o?token=hunter2",
        "https://h/o#hunter2",
    ] {
        let message = refused(url, Plaintext::Loopback);
        assert!(!message.contains("hunter2"), "{message}");
        assert!(!shown(url).contains("hunter2"), "{}", shown(url));
    }
    assert!(has_credentials("https://x@h/o/p") && !has_credentials("https://h/o/p?x=a@b"));
    assert_eq!(shown("https://user:x@h/o/p?y#z"), "https://***@h/o/p");
    assert_eq!(shown("https://h/o/p?y"), "https://h/o/p");
    assert_eq!(shown("file:///srv/a@b?c"), "file:///srv/a@b?c");
    assert!(refused("https://user:x@h/o/p", Plaintext::Loopback).contains("no name and no password"));
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,80}", plaintext in any::<bool>()) {
        let plaintext = if plaintext { Plaintext::Anywhere } else { Plaintext::Loopback };
        let _ = RemoteUrl::parse(&text, plaintext);
        let _ = shown(&text);
    }

    #[test]
    fn what_is_built_by_the_grammar_is_read_back(
        https in any::<bool>(),
        host in "[a-z]([a-z0-9]{0,8}[a-z])?(\\.[a-z]{2,5}){0,2}",
        port in proptest::option::of(1u16..),
        at in proptest::sample::select(vec!["", "at/", "AT/", "aT/"]),
        org in "[a-z0-9][a-z0-9._-]{0,63}",
        project in "[a-z0-9][a-z0-9._-]{0,63}",
        rest in "(/)?(\\?[a-z=&]{0,9})?(#[a-z]{0,9})?",
    ) {
        let scheme = if https { "https" } else { "http" };
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let read = service(&format!("{scheme}://{host}{port}/{at}{org}/{project}{rest}"));
        prop_assert_eq!((read.org().as_str(), read.project().as_str()), (org.as_str(), project.as_str()));
        prop_assert_eq!(read.is_gateway(), !at.is_empty());
        prop_assert_eq!(read.is_insecure(), !https && host != "localhost");
        prop_assert!(read.base_url().starts_with(read.host_url()));
        prop_assert_eq!(service(&read.to_string()), read);
    }

    /// Whatever is taken from odd input, its canonical form is clean and stays the same when read again.
    #[test]
    fn what_is_taken_is_clean(text in "(https?://)?[ah1.:@/?#%\\[\\]\\\\ \tA-]{0,24}(/at)?/[oO.%]{1,3}/[p/?#@]{1,4}") {
        if let Ok(RemoteUrl::Service(service)) = RemoteUrl::parse(&text, Plaintext::Anywhere) {
            let canonical = service.to_string();
            prop_assert!(!canonical.contains(['@', '?', '#', '\\', '%', ' ', '\t']), "{} {}", text, canonical);
            prop_assert_eq!(RemoteUrl::parse(&canonical, Plaintext::Anywhere).unwrap(), RemoteUrl::Service(service));
        }
    }

    #[test]
    fn credentials_are_never_shown(
        name in "[a-z:/?#@]{0,9}",
        secret in "[A-Z]{6,12}",
        rest in "[a-z/?#@]{0,12}",
    ) {
        let url = format!("https://{name}{secret}@{rest}");
        prop_assert!(!shown(&url).contains(&secret), "{} is shown as {}", url, shown(&url));
        if let Err(error) = RemoteUrl::parse(&url, Plaintext::Anywhere) {
            prop_assert!(!error.message().contains(&secret), "{}", error.message());
        }
    }
}

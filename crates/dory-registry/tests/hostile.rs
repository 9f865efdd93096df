//! Registries that lie, hang, break off and send us elsewhere: a clear error, and no credential in the wrong place.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod server;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dory_registry::{Credentials, Descriptor, MediaType, RegistryError, RegistryErrorKind, Remote, Secret};
use dory_types::{Digest, with_causes};
use server::{Answer, Request, Server, answer, head, missing};

/// What every registry says to `GET /v2/`.
fn greeting(_: &Request) -> Answer {
    answer("200 OK", &[], b"{}")
}

/// Why the image `x` of a registry that answers so cannot be had.
async fn refusal(answers: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> String {
    let server = Server::start(answers).await;
    let error = server.remote().resolve(&server.reference("x"), None).await.unwrap_err();
    with_causes(&error)
}

fn manifest_of(layers: &[Descriptor]) -> Vec<u8> {
    let config = Descriptor::of(MediaType::DOCKER_CONFIG, b"{}");
    dory_registry::write_manifest(&config, layers).1
}

fn index_of(digest: Digest) -> Vec<u8> {
    let entry = serde_json::json!({"mediaType": MediaType::OCI_INDEX, "digest": digest, "size": 10});
    serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "manifests": [entry]})).unwrap()
}

fn ok(body: &[u8]) -> Answer {
    answer("200 OK", &[], body)
}

#[tokio::test]
async fn manifests_that_cannot_be_right() {
    let other = Digest::of(b"other").to_string();
    let many = Descriptor::of(MediaType::DOCKER_LAYER_GZIP, b"layer");
    let many = |count| ok(&manifest_of(&vec![many.clone(); count]));
    let foreign = Descriptor::of("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", b"x");
    for (expected, answers) in [
        (
            "does not match its digest",
            answer("200 OK", &[("Docker-Content-Digest", &other)], &manifest_of(&[])),
        ),
        ("is longer than 4194304 bytes", ok(&vec![b' '; (4 << 20) + 1])),
        ("is longer than 4194304 bytes", {
            let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
            Answer::Endless(head("200 OK", &[("Transfer-Encoding", "chunked")], None).into_bytes(), chunk)
        }),
        // Small descriptors are many in four MiB.
        (": too many layers: 20000", many(20_000)),
        ("is longer than 4194304 bytes", many(100_000)),
        ("malformed manifest", ok(b"{\"schemaVersion\": 2")),
        ("unsupported manifest", ok(b"{}")),
        ("obsolete schema version 1", ok(b"{\"schemaVersion\": 1, \"fsLayers\": []}")),
        ("is a foreign layer", ok(&manifest_of(&[foreign]))),
        ("no matching manifest for linux/", ok(b"{\"schemaVersion\": 2, \"manifests\": []}")),
    ] {
        let answers = std::sync::Mutex::new(Some(answers));
        let text = refusal(move |_| answers.lock().unwrap().take().unwrap_or_else(missing)).await;
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn indexes_that_lead_nowhere() {
    // No document can have its own digest; one that says so is found out.
    let itself = index_of(Digest::of(b"itself"));
    let text = refusal(move |_| ok(&itself)).await;
    assert!(text.contains("does not match its digest"), "{text}");
    let mut documents = HashMap::new();
    let mut top = manifest_of(&[]);
    for _ in 0..6 {
        let digest = Digest::of(&top);
        documents.insert(digest.to_string(), top);
        top = index_of(digest);
    }
    documents.insert("x".to_owned(), top);
    let text = refusal(move |request| {
        let name = request.path.rsplit('/').next().unwrap();
        documents.get(name).map_or_else(missing, |document| ok(document))
    })
    .await;
    assert!(text.contains("leads to indexes more than 4 deep"), "{text}");
}

/// Fetches the blob `content` of a registry that answers so, to the last byte.
async fn fetch(
    content: &[u8],
    answers: impl Fn(&Request) -> Answer + Send + Sync + 'static,
) -> (Result<Vec<u8>, RegistryError>, Vec<Request>) {
    let server = Server::start(answers).await;
    let blob = Descriptor::of(MediaType::DOCKER_LAYER_GZIP, content);
    let result = server.remote().blob_bytes(&blob, 1 << 20).await;
    (result.map(Vec::from), server.requests())
}

#[tokio::test]
async fn blobs_of_a_wrong_length_or_content() {
    let content = vec![7; 10_000];
    for (expected, answers) in [
        ("has 10001 bytes, but its manifest says 10000", ok(&vec![7; 10_001])),
        ("has 9999 bytes, but its manifest says 10000", ok(&vec![7; 9_999])),
        ("does not match its digest", ok(&vec![8; 10_000])),
        ("but its manifest says 10000", {
            let chunk = [b"1000\r\n".as_slice(), &[7; 0x1000], b"\r\n"].concat();
            Answer::Endless(head("200 OK", &[("Transfer-Encoding", "chunked")], None).into_bytes(), chunk)
        }),
    ] {
        let answers = std::sync::Mutex::new(Some(answers));
        let (result, _) =
            fetch(&content, move |_| answers.lock().unwrap().take().unwrap_or_else(missing)).await;
        let text = with_causes(&result.unwrap_err());
        assert!(text.contains(expected), "{text}");
    }
}

/// The part of `content` that a request asks for; `length` bytes of it and then the end, whatever was announced.
fn part(content: &[u8], request: &Request, length: usize) -> Answer {
    let start: usize =
        request.header("range").trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap_or(0);
    let rest = &content[start..];
    let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
    let head = match start {
        0 => head("200 OK", &[], Some(rest.len())),
        _ => head("206 Partial Content", &[("Content-Range", &range)], Some(rest.len())),
    };
    Answer::Raw([head.as_bytes(), &rest[..length.min(rest.len())]].concat())
}

#[tokio::test]
async fn a_blob_that_breaks_off_goes_on_where_it_was() {
    let content: Vec<u8> = (0..10_000_u32).map(|number| number as u8).collect();
    let served = content.clone();
    let (result, requests) = fetch(&content, move |request| part(&served, request, 4_000)).await;
    assert_eq!(result.unwrap(), content);
    let ranges: Vec<_> = requests.iter().map(|request| request.header("range")).collect();
    assert_eq!(ranges, ["", "bytes=4000-", "bytes=8000-"]);
    // A registry without ranges sends everything again.
    let (served, times) = (content.clone(), AtomicUsize::new(0));
    let (result, requests) = fetch(&content, move |_| {
        let length = if times.fetch_add(1, Ordering::Relaxed) == 0 { 3_000 } else { served.len() };
        part(&served, &Request::default(), length)
    })
    .await;
    assert_eq!((result.unwrap(), requests.len()), (content.clone(), 2));
    // One that sends another part is not believed.
    let served = content.clone();
    let (result, _) = fetch(&content, move |request| match request.header("range") {
        "" => part(&served, request, 4_000),
        _ => answer("206 Partial Content", &[("Content-Range", "bytes 5000-9999/10000")], &served[5_000..]),
    })
    .await;
    let text = with_causes(&result.unwrap_err());
    assert!(text.contains("no usable `Content-Range`"), "{text}");
}

#[tokio::test]
async fn a_blob_that_always_breaks_off_or_hangs() {
    let content = vec![1; 10_000];
    let served = content.clone();
    let (result, requests) = fetch(&content, move |_| part(&served, &Request::default(), 1_000)).await;
    let text = with_causes(&result.unwrap_err());
    assert!(text.contains("broke off after 1000 of 10000 bytes, in 3 attempts"), "{text}");
    assert_eq!(requests.len(), 3);
    let (result, _) =
        fetch(&content, |_| Answer::Hang([head("200 OK", &[], Some(10_000)).as_bytes(), &[1; 10]].concat()))
            .await;
    let text = with_causes(&result.unwrap_err());
    assert!(text.contains("no answer within 1 s"), "{text}");
}

#[tokio::test]
async fn a_silent_registry() {
    let text = refusal(|_| Answer::Hang(Vec::new())).await;
    assert!(text.contains("no answer within 1 s"), "{text}");
    let text = refusal(|_| Answer::Raw(b"SSH-2.0-OpenSSH\r\n".to_vec())).await;
    assert!(text.starts_with("Get \"http://127.0.0.1:"), "{text}");
}

#[tokio::test]
async fn a_redirect_to_another_host_carries_no_credential() {
    let content = b"content".to_vec();
    let served = content.clone();
    let storage = Server::start(move |_| ok(&served)).await;
    let address = storage.address;
    let registry = Server::start(move |request| match request.header("authorization") {
        "" => answer("401 Unauthorized", &[("WWW-Authenticate", "Basic realm=\"r\"")], b""),
        _ => answer(
            "307 Temporary Redirect",
            &[("Location", &format!("http://{address}/blob?signature=s"))],
            b"",
        ),
    })
    .await;
    let blob = Descriptor::of(MediaType::DOCKER_LAYER_GZIP, &content);
    assert_eq!(registry.remote().blob_bytes(&blob, 1 << 20).await.unwrap(), content);
    assert_eq!(registry.requests().last().unwrap().header("authorization"), "Basic dTpw");
    let reached = storage.requests();
    assert_eq!((reached.len(), reached[0].header("authorization")), (1, ""));
}

#[tokio::test]
async fn whom_a_redirect_leads_to_gets_nothing_out_of_us() {
    // Storage that asks for credentials of its own, and has words that are not for everybody.
    let storage = Server::start(|_| {
        let body = br#"{"errors":[{"code":"X","message":"inner secret"}]}"#;
        answer("401 Unauthorized", &[("WWW-Authenticate", "Basic realm=\"storage\"")], body)
    })
    .await;
    let address = storage.address;
    let registry = Server::start(move |_| {
        answer("302 Found", &[("Location", &format!("http://{address}/blob?signature=hidden"))], b"")
    })
    .await;
    let error = registry.remote().resolve(&registry.reference("x"), None).await.unwrap_err();
    let text = with_causes(&error);
    assert!(!text.contains("secret") && !text.contains("hidden"), "{text}");
    assert!(storage.requests().iter().all(|request| request.header("authorization").is_empty()));
}

#[tokio::test]
async fn redirects_without_an_end() {
    let text = refusal(|request| answer("302 Found", &[("Location", &request.path)], b"")).await;
    assert!(text.contains("redirected more than 10 times"), "{text}");
    for location in ["", "ftp://x/", "http://user@x/"] {
        let text = refusal(move |_| answer("302 Found", &[("Location", location)], b"")).await;
        assert!(text.contains("redirected to what is no address"), "{text}");
    }
}

#[tokio::test]
async fn tokens_come_from_the_service_that_the_registry_names() {
    let service = Server::start(|_| ok(br#"{"token": "t", "expires_in": 300}"#)).await;
    let address = service.address;
    let manifest = manifest_of(&[]);
    let registry = Server::start(move |request| match request.header("authorization") {
        "Bearer t" => ok(&manifest),
        _ => {
            let challenge = format!("Bearer realm=\"http://{address}/token\",service=\"r\"");
            answer("401 Unauthorized", &[("WWW-Authenticate", &challenge)], b"")
        }
    })
    .await;
    let remote = registry.remote();
    remote.resolve(&registry.reference("x"), None).await.unwrap();
    remote.resolve(&registry.reference("y"), None).await.unwrap();
    let asked = service.requests();
    assert_eq!(asked.len(), 1, "a token is asked for once");
    assert_eq!(asked[0].header("authorization"), "Basic dTpw");
    assert!(asked[0].path.contains("scope=repository%3Aa%2Fb%3Apull%2Cpush"), "{}", asked[0].path);
    assert!(registry.requests().iter().all(|request| !request.header("authorization").starts_with("Basic")));
}

#[tokio::test]
async fn an_identity_token_goes_to_the_token_service_only() {
    let service = Server::start(|_| ok(br#"{"access_token": "t"}"#)).await;
    let address = service.address;
    let manifest = manifest_of(&[]);
    let registry = Server::start(move |request| match request.header("authorization") {
        "Bearer t" => ok(&manifest),
        _ => {
            let challenge = format!("Bearer realm=\"http://{address}/token\",service=\"r\"");
            answer("401 Unauthorized", &[("WWW-Authenticate", &challenge)], b"")
        }
    })
    .await;
    let remote = registry.remote_with(Credentials::IdentityToken(Secret::new("identity")));
    remote.resolve(&registry.reference("x"), None).await.unwrap();
    let asked = service.requests();
    assert_eq!((asked.len(), asked[0].method.as_str(), asked[0].path.as_str()), (1, "POST", "/token"));
    assert_eq!(asked[0].header("authorization"), "");
    assert!(registry.requests().iter().all(|request| !request.header("authorization").contains("identity")));
}

#[tokio::test]
async fn wrong_credentials_and_none() {
    let challenge = [("WWW-Authenticate", "Basic realm=\"r\"")];
    let body = br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
    let server = Server::start(move |_| answer("401 Unauthorized", &challenge, body)).await;
    let resolve = async |remote: Remote| remote.resolve(&server.reference("x"), None).await.unwrap_err();
    let error = resolve(server.remote()).await;
    assert_eq!(with_causes(&error), "unauthorized: authentication required");
    assert_eq!(error.kind(), RegistryErrorKind::Unauthorized);
    let error = resolve(server.remote_with(Credentials::Anonymous)).await;
    assert!(with_causes(&error).ends_with("no basic auth credentials"), "{error}");
    assert!(server.requests().len() <= 3, "nobody asks for ever");
}

#[tokio::test]
async fn refusals_in_words() {
    let rate = |retry: &'static str| {
        move |_: &Request| {
            let body = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit"}]}"#;
            answer("429 Too Many Requests", &[("Retry-After", retry)], body)
        }
    };
    let text = refusal(rate("3600")).await;
    assert_eq!(text, "toomanyrequests: You have reached your pull rate limit (try again in 3600 s)");
    let text = refusal(|_| {
        answer(
            "403 Forbidden",
            &[],
            br#"{"errors":[{"code":"DENIED","message":"requested access\u001b[2J"}]}"#,
        )
    })
    .await;
    assert!(
        text.contains("pull access denied for 127.0.0.1:") && text.ends_with("denied: requested access [2J"),
        "{text}"
    );
    let text = refusal(|_| missing()).await;
    assert!(text.contains("/a/b:x not found: manifest unknown: manifest unknown"), "{text}");
}

#[tokio::test]
async fn a_registry_that_has_troubles_is_asked_again() {
    let (manifest, times) = (manifest_of(&[]), AtomicUsize::new(0));
    let server = Server::start(move |_| match times.fetch_add(1, Ordering::Relaxed) {
        0 => answer("503 Service Unavailable", &[], b""),
        1 => Answer::Raw(Vec::new()),
        _ => ok(&manifest),
    })
    .await;
    server.remote().resolve(&server.reference("x"), None).await.unwrap();
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn an_upload_that_leads_elsewhere_carries_no_credential() {
    let storage = Server::start(|_| answer("201 Created", &[], b"")).await;
    let address = storage.address;
    let registry = Server::start(move |request| match request.header("authorization") {
        "" => answer("401 Unauthorized", &[("WWW-Authenticate", "Basic realm=\"r\"")], b""),
        _ => answer("202 Accepted", &[("Location", &format!("http://{address}/upload"))], b""),
    })
    .await;
    let content = bytes::Bytes::from_static(b"content");
    let blob = Descriptor::of(MediaType::DOCKER_LAYER_GZIP, &content);
    registry.remote().push_bytes(&blob, &content).await.unwrap();
    let reached = storage.requests();
    assert_eq!((reached[0].method.as_str(), reached[0].header("authorization")), ("PUT", ""));
    assert!(reached[0].path.starts_with("/upload?digest=sha256%3A"), "{}", reached[0].path);
}

#[tokio::test]
async fn blobs_in_pieces_where_a_whole_one_is_refused() {
    let pieces = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&pieces);
    let server = Server::start(move |request| match request.method.as_str() {
        "POST" | "PATCH" => {
            counted.fetch_add(usize::from(request.method == "PATCH"), Ordering::Relaxed);
            answer("202 Accepted", &[("Location", "/v2/a/b/blobs/uploads/1")], b"")
        }
        _ if request.header("content-length") == "0" => answer("201 Created", &[], b""),
        _ => answer("413 Payload Too Large", &[], b""),
    })
    .await;
    let content = bytes::Bytes::from(vec![3; 40 << 20]);
    let blob = Descriptor::of(MediaType::DOCKER_LAYER_GZIP, &content);
    server.remote().push_bytes(&blob, &content).await.unwrap();
    assert_eq!(pieces.load(Ordering::Relaxed), 3);
}

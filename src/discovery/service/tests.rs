//! The service over a registry in memory: who gets which answer, and what strangers cannot do.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::*;

/// Tokens in a map. A second implementation beside the real stores, which can be told to fail.
#[derive(Debug, Default)]
struct Memory {
    tokens: Mutex<BTreeMap<Token, Roster>>,
    fails: bool,
    /// Whether a probe has left its mark.
    marked: Mutex<bool>,
    /// Whether nothing that was made is ever removed.
    keeps: bool,
}

impl Memory {
    fn tokens(&self) -> std::sync::MutexGuard<'_, BTreeMap<Token, Roster>> {
        self.tokens.lock().unwrap()
    }

    fn work<T>(&self, work: impl FnOnce(&mut BTreeMap<Token, Roster>) -> T) -> Result<T, RegistryError> {
        if self.fails { Err(RegistryError("out of order".into())) } else { Ok(work(&mut self.tokens())) }
    }

    fn put(roster: &mut Roster, name: &MemberName, value: String) -> Reply {
        if let Some(known) = roster.members.iter_mut().find(|known| known.name == name.as_str()) {
            known.value = value;
            return Reply::text(StatusCode::OK, "{}");
        }
        roster.members.push(Registered { name: name.to_string(), value, since: None });
        Reply::text(StatusCode::CREATED, "{}")
    }

    fn delete(roster: &mut Roster, name: &MemberName) -> Reply {
        roster.members.retain(|known| known.name != name.as_str());
        Reply::text(StatusCode::OK, "{}")
    }
}

impl Registry for Arc<Memory> {
    fn found<'a>(&'a self, token: &'a Token, size: u32) -> Pending<'a, ()> {
        let roster = Roster { size: Some(size), members: Vec::new(), expires_in: None };
        Box::pin(async move { self.work(|tokens| drop(tokens.insert(token.clone(), roster))) })
    }

    fn mark(&self) -> Pending<'_, ()> {
        Box::pin(async move { self.work(|_| *self.marked.lock().unwrap() = true) })
    }

    fn unmark(&self) -> Pending<'_, ()> {
        Box::pin(async move {
            if self.keeps {
                return std::future::pending().await;
            }
            self.work(|_| *self.marked.lock().unwrap() = false)
        })
    }

    fn roster<'a>(&'a self, token: &'a Token) -> Pending<'a, Option<Roster>> {
        Box::pin(async move { self.work(|tokens| tokens.get(token).cloned()) })
    }

    fn count(&self) -> Pending<'_, usize> {
        Box::pin(async move { self.work(|tokens| tokens.len()) })
    }

    fn ask(&self, ask: Ask) -> Pending<'_, Reply> {
        Box::pin(async move {
            // A store takes its time, in which others are asked for.
            tokio::task::yield_now().await;
            match ask.what {
                What::Put { name, value, .. } => {
                    self.work(|tokens| Memory::put(tokens.get_mut(&ask.token).unwrap(), &name, value))
                }
                What::Delete { name } => self.work(|tokens| Memory::delete(tokens.get_mut(&ask.token).unwrap(), &name)),
                What::Wait { .. } => std::future::pending().await,
                What::Get { .. } => self.work(|_| Reply::text(StatusCode::OK, "{}")),
            }
        })
    }
}

/// A service over a registry in memory.
pub(super) fn service() -> Arc<Service> {
    Rig::new(Options::default()).service
}

struct Rig {
    service: Arc<Service>,
    memory: Arc<Memory>,
    stop: CancellationToken,
}

impl Rig {
    fn new(options: Options) -> Self {
        Self::over(Memory::default(), options)
    }

    fn over(memory: Memory, options: Options) -> Self {
        let (memory, stop) = (Arc::new(memory), CancellationToken::new());
        let service = Service::new(Box::new(Arc::clone(&memory)), options, stop.clone());
        Self { service, memory, stop }
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> (u16, String) {
        let origin = Origin { address: Some([192, 0, 2, 1].into()), secure: false };
        let response = self.service.answer(request, origin).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.ask(request("GET", path, "")).await
    }

    async fn token(&self) -> String {
        let (status, url) = self.get("/new").await;
        assert_eq!(status, 200, "{url}");
        url.strip_prefix("http://disc.example:8087").unwrap().to_owned()
    }
}

fn request(method: &str, path: &str, form: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "disc.example:8087")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::from(form.to_owned()))
        .unwrap()
}

#[tokio::test]
async fn a_new_token_is_a_url_without_a_lines_end_for_as_many_members_as_asked() {
    let rig = Rig::new(Options::default());
    let token = rig.token().await;
    assert!(Token::parse(&token[1..]).is_some(), "{token}");
    for (method, path, form, size) in [
        ("GET", "/new?size=5", "", 5),
        ("PUT", "/new", "size=1", 1),
        ("POST", "/new?size=7", "size=2", 2),
        ("GET", "/new?size=", "", 3),
    ] {
        rig.memory.tokens().clear();
        assert_eq!(rig.ask(request(method, path, form)).await.0, 200);
        let sizes: Vec<_> = rig.memory.tokens().values().map(|roster| roster.size).collect();
        assert_eq!(sizes, [Some(size)], "{method} {path} {form}");
    }
    let rig = Rig::new(Options { public_url: Some("https://disc.example/d".into()), ..Options::default() });
    assert!(rig.get("/new").await.1.starts_with("https://disc.example/d/"));
}

#[tokio::test]
async fn sizes_that_make_no_cluster_are_refused() {
    let rig = Rig::new(Options::default());
    let refused = |text: &str| (400, format!("{text}\n"));
    assert_eq!(rig.get("/new?size=x").await, refused("strconv.Atoi: parsing \"x\": invalid syntax"));
    for size in ["0", "-1", "65", "99999999999999999999"] {
        let text = format!("size must be between 1 and 64, not {size}");
        assert_eq!(rig.get(&format!("/new?size={size}")).await, refused(&text));
    }
    assert_eq!(rig.ask(request("DELETE", "/new", "")).await.0, 405);
    assert!(rig.memory.tokens().is_empty());
}

#[tokio::test]
async fn an_address_makes_so_many_tokens_in_a_minute_and_hears_when_to_come_again() {
    let rig = Rig::new(Options { new_per_minute: 2, proxies: vec![[192, 0, 2, 9].into()], ..Options::default() });
    rig.token().await;
    rig.token().await;
    let (status, text) = rig.get("/new").await;
    assert_eq!((status, text.as_str()), (429, "too many new tokens: try again later\n"));
    let ask = async |address: [u8; 4], forwarded: &'static str| {
        let mut request = request("GET", "/new", "");
        request.headers_mut().insert(FORWARDED_FOR, HeaderValue::from_static(forwarded));
        let origin = Origin { address: Some(address.into()), secure: false };
        rig.service.answer(request, origin).await
    };
    let lying = ask([192, 0, 2, 1], "203.0.113.1").await;
    assert_eq!(lying.status(), 429, "nobody but a known proxy says who the client is");
    assert!(lying.headers()[RETRY_AFTER].to_str().unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(ask([192, 0, 2, 9], "203.0.113.7, 192.0.2.1").await.status(), 429, "the last one counts");
    assert_eq!(ask([192, 0, 2, 9], "192.0.2.1, 203.0.113.1").await.status(), 200);
    assert_eq!(ask([192, 0, 2, 9], "nonsense").await.status(), 200, "then the proxy itself is counted");
}

#[tokio::test]
async fn there_are_only_so_many_tokens() {
    let rig = Rig::new(Options { tokens_max: 2, ..Options::default() });
    rig.token().await;
    rig.token().await;
    let (status, text) = rig.get("/new").await;
    assert_eq!((status, text.starts_with("Unable to generate token")), (503, true), "{text}");
}

#[tokio::test]
async fn nothing_is_made_below_a_token_nobody_made() {
    let rig = Rig::new(Options::default());
    let token = "0123456789abcdef0123456789abcdef";
    let (status, body) = rig.ask(request("PUT", &format!("/{token}/a?prevExist=false"), "value=m=http://a:1")).await;
    let expected = format!(
        "{{\"errorCode\":100,\"message\":\"Key not found\",\"cause\":\"/_etcd/registry/{token}\",\"index\":0}}\n"
    );
    assert_eq!((status, body), (404, expected));
    assert!(rig.memory.tokens().is_empty());
}

#[tokio::test]
async fn a_token_takes_so_many_members_and_no_more() {
    let rig = Rig::new(Options::default());
    let token = rig.token().await;
    let register = async |number: usize| rig.ask(request("PUT", &format!("{token}/m{number}"), "value=x")).await;
    let most = 3 + SURPLUS_MAX;
    for number in 0..most {
        assert_eq!(register(number).await.0, 201);
    }
    let (status, body) = register(most).await;
    assert_eq!((status, body.contains("\"errorCode\":103")), (400, true), "{body}");
}

#[tokio::test]
async fn a_token_takes_no_more_members_when_all_come_at_once() {
    let rig = Rig::new(Options::default());
    let token = rig.token().await;
    let register = |number: usize| rig.ask(request("PUT", &format!("{token}/m{number}"), "value=x"));
    let answers = join_all((0..60).map(register)).await;
    let count = |code: u16| answers.iter().filter(|(status, _)| *status == code).count();
    assert_eq!((count(201), count(400)), (3 + SURPLUS_MAX, 60 - 3 - SURPLUS_MAX), "{answers:?}");
}

#[tokio::test]
async fn nobody_writes_over_a_founder_while_the_cluster_becomes_complete() {
    let rig = Rig::new(Options::default());
    let token = rig.token().await;
    let put = |name: &str, value: &str| rig.ask(request("PUT", &format!("{token}/{name}"), &format!("value={value}")));
    for name in ["m1", "m2"] {
        assert_eq!(put(name, "x").await.0, 201);
    }
    let answers = join_all([put("m3", "x"), put("m1", "evil")]).await;
    assert_eq!((answers[0].0, answers[1].0), (201, 403), "{answers:?}");
}

#[tokio::test]
async fn an_address_makes_so_many_changes_in_a_minute_and_hears_when_to_come_again() {
    let rig = Rig::new(Options { new_per_minute: 1, ..Options::default() });
    let token = rig.token().await;
    let change = async |method: &str, address: u8| {
        let origin = Origin { address: Some([192, 0, 2, address].into()), secure: false };
        rig.service.answer(request(method, &format!("{token}/m"), "value=x"), origin).await
    };
    for number in 0..CHANGES_PER_TOKEN {
        let answer = change(if number % 2 == 0 { "PUT" } else { "DELETE" }, 1).await;
        assert!(answer.status().is_success(), "{answer:?}");
    }
    for method in ["PUT", "DELETE"] {
        let refused = change(method, 1).await;
        assert_eq!(refused.status(), 429);
        assert!(refused.headers()[RETRY_AFTER].to_str().unwrap().parse::<u64>().unwrap() > 0);
        let body = refused.into_body().collect().await.unwrap().to_bytes();
        assert!(body.starts_with(b"{\"errorCode\":300,"), "{body:?}");
    }
    assert_eq!(rig.get(&token).await.0, 200, "reading is another matter");
    assert!(change("PUT", 2).await.status().is_success(), "another address");
}

#[tokio::test]
async fn nobody_writes_over_founders_of_a_complete_cluster() {
    let rig = Rig::new(Options::default());
    let token = rig.token().await;
    let ask = async |method: &str, name: &str, value: &str| {
        rig.ask(request(method, &format!("{token}/{name}"), &format!("value={value}"))).await
    };
    assert_eq!(ask("PUT", "m0", "x").await.0, 201);
    assert_eq!(ask("DELETE", "m0", "").await.0, 200, "as long as others are missing");
    for name in ["m1", "m2", "m3"] {
        assert_eq!(ask("PUT", name, "x").await.0, 201);
    }
    let (status, body) = ask("PUT", "m1", "evil").await;
    assert_eq!((status, body.contains("\"errorCode\":107")), (403, true), "{body}");
    assert!(body.contains("/m1: the cluster is complete"), "{body}");
    assert_eq!(ask("PUT", "m1", "x").await.0, 200, "what is there already changes nothing");
    assert_eq!(rig.ask(request("PUT", &format!("{token}/_config/size"), "value=9")).await.0, 405);
    assert_eq!(ask("DELETE", "m1", "").await.0, 200, "the way back for who has lost everything meanwhile");
}

#[tokio::test]
async fn bodies_and_queries_are_bounded() {
    let rig = Rig::new(Options::default());
    let token = rig.token().await;
    let long = format!("value={}", "x".repeat(BODY_BYTES_MAX));
    let (status, body) = rig.ask(request("PUT", &format!("{token}/a"), &long)).await;
    assert_eq!((status, body.contains("http: POST too large")), (400, true), "{body}");
    let (status, body) = rig.get(&format!("{token}?a={}", "x".repeat(QUERY_BYTES_MAX))).await;
    assert_eq!((status, body.contains("\"errorCode\":210")), (400, true), "{body}");
    assert_eq!(rig.get(&format!("{token}?a=%zz")).await.0, 400);
}

#[tokio::test]
async fn waits_are_counted_and_end_with_the_service() {
    let rig = Rig::new(Options::default());
    let token = rig.token().await;
    let held: Vec<_> =
        (0..WAITS_PER_TOKEN_MAX).map(|_| rig.service.waits.begin(&Token::parse(&token[1..]).unwrap())).collect();
    assert_eq!(rig.get(&format!("{token}?wait=true")).await.0, 503);
    drop(held);
    rig.stop.cancel();
    assert_eq!(rig.get(&format!("{token}?wait=true&recursive=true")).await, (200, String::new()));
}

#[tokio::test]
async fn a_store_that_fails_is_told_as_something_that_passes() {
    let rig = Rig::over(Memory { fails: true, ..Memory::default() }, Options::default());
    let token = "/0123456789abcdef0123456789abcdef";
    assert_eq!(rig.get("/new").await, (503, "Unable to generate token\n".into()));
    let (status, body) = rig.get(token).await;
    assert_eq!((status, body.contains("\"errorCode\":300")), (503, true), "{body}");
    assert_eq!(rig.get("/health").await, (503, "health failed to setupToken\n".into()));
    assert_eq!(rig.get(&format!("/?token={}", &token[1..])).await.0, 503);
}

#[tokio::test]
async fn probes_leave_nothing_behind() {
    let rig = Rig::new(Options::default());
    assert_eq!(rig.get("/health").await, (200, "OK".into()));
    assert!(rig.memory.tokens().is_empty());
    let (status, metrics) = rig.get("/metrics").await;
    assert!(
        status == 200 && metrics.contains("endpoint_health_requests_total{code=\"200\",method=\"get\"} 1\n"),
        "{metrics}"
    );
    assert_eq!(rig.get("/robots.txt").await, (200, "User-agent: *\nDisallow: /\n".into()));
    assert_eq!(rig.get("/nothing").await.0, 404);
}

#[tokio::test]
async fn a_probe_that_is_cut_short_leaves_no_token() {
    let rig = Rig::over(Memory { keeps: true, ..Memory::default() }, Options::default());
    for _ in 0..3 {
        // Who asks goes away before the store has answered.
        assert!(timeout(Duration::from_millis(50), rig.get("/health")).await.is_err());
    }
    assert!(rig.memory.tokens().is_empty() && *rig.memory.marked.lock().unwrap());
}

#[tokio::test]
async fn the_page_shows_one_token_to_whoever_has_it_and_makes_new_ones() {
    let rig = Rig::new(Options::default());
    let token = rig.token().await;
    let (status, start) = rig.get("/").await;
    assert!(status == 200 && !start.contains(&token[1..]), "tokens are never listed");
    for asked in [token[1..].to_owned(), format!("http%3A%2F%2Fdisc.example%3A8087{token}")] {
        let (status, page) = rig.get(&format!("/?token={asked}")).await;
        assert!(status == 200 && page.contains("0 of 3 members have registered, 3 are missing"), "{page}");
        assert!(page.contains(&format!("--discovery http://disc.example:8087{token}")), "{page}");
    }
    let (status, page) = rig.get("/?token=%3Cscript%3E").await;
    assert!(status == 404 && page.contains("&lt;script&gt;"), "{page}");
    let made = rig.service.answer(request("POST", "/", "size=5"), Origin::default()).await;
    assert_eq!(made.status(), 303);
    let location = made.headers()[LOCATION].to_str().unwrap().to_owned();
    assert!(rig.get(&location).await.1.contains("0 of 5 members"));
    let (status, page) = rig.ask(request("POST", "/", "size=0")).await;
    assert!(status == 400 && page.contains("size must be between 1 and 64"), "{page}");
}

#[tokio::test]
async fn a_host_that_is_none_is_not_repeated() {
    let rig = Rig::new(Options::default());
    let mut request = request("GET", "/new", "");
    request.headers_mut().insert(HOST, HeaderValue::from_static("a\"><b>"));
    assert_eq!(rig.ask(request).await.0, 400);
    assert!(rig.memory.tokens().is_empty());
}

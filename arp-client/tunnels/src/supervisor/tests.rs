//! The whole life of a tunnel in paused time, with a scripted backend and a scripted public URL.

use super::*;
use crate::{Backend, Check, ProbeOutcome};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// What the script says and what was asked of it.
#[derive(Default)]
struct Script {
    starts: VecDeque<Result<&'static str, TunnelError>>,
    probes: VecDeque<ProbeOutcome>,
    backend_bad: bool,
    calls: Vec<&'static str>,
}

#[derive(Clone)]
struct Scripted {
    script: Arc<Mutex<Script>>,
    news: Arc<tokio::sync::Notify>,
    change: Arc<Mutex<Option<Change>>>,
}

impl Scripted {
    fn new(starts: impl IntoIterator<Item = Result<&'static str, TunnelError>>) -> Self {
        let script = Script {
            starts: starts.into_iter().collect(),
            ..Script::default()
        };
        Self {
            script: Arc::new(Mutex::new(script)),
            news: Arc::default(),
            change: Arc::default(),
        }
    }

    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    fn tell(&self, change: Change) {
        *self.change.lock().unwrap() = Some(change);
        self.news.notify_one();
    }

    fn count(&self, call: &str) -> usize {
        self.script().calls.iter().filter(|it| **it == call).count()
    }
}

impl Tunnel for Scripted {
    fn backend(&self) -> Backend {
        Backend::Custom
    }

    async fn start(&mut self) -> Result<TunnelInfo, TunnelError> {
        let mut script = self.script();
        script.calls.push("start");
        // The last one goes for all further starts.
        let next = match script.starts.len() {
            1 => script.starts.front().cloned(),
            _ => script.starts.pop_front(),
        };
        next.unwrap()
            .map(|url| TunnelInfo::new(Backend::Custom, url, 3000))
    }

    async fn stop(&mut self) -> Result<(), TunnelError> {
        self.script().calls.push("stop");
        Ok(())
    }

    async fn health_check(&self) -> Result<TunnelHealth, TunnelError> {
        let backend = match self.script().backend_bad {
            true => Check::Bad("no connections".into()),
            false => Check::Good("ready".into()),
        };
        Ok(TunnelHealth::of(Check::Good("runs".into()), backend))
    }

    fn status(&self) -> TunnelStatus {
        TunnelStatus::Idle
    }

    async fn changed(&mut self) -> Change {
        loop {
            if let Some(change) = self.change.lock().unwrap().take() {
                return change;
            }
            self.news.notified().await;
        }
    }
}

impl Probe for Scripted {
    async fn probe(&self, _: &str) -> ProbeOutcome {
        let mut script = self.script();
        script.calls.push("probe");
        match script.probes.len() {
            0 => ProbeOutcome::Proven(Duration::from_millis(1)),
            1 => script.probes[0].clone(),
            _ => script.probes.pop_front().unwrap(),
        }
    }
}

fn plan(max_attempts: u32) -> Plan {
    Plan {
        reconnect: Reconnect {
            enabled: true,
            max_attempts,
            base: Duration::from_secs(1),
            max: Duration::from_secs(60),
        },
        health_interval: Duration::from_secs(30),
        max_failures: 3,
    }
}

struct Run {
    script: Scripted,
    handle: Handle,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<Result<(), TunnelError>>,
}

impl Run {
    fn start(script: Scripted, plan: Plan) -> Self {
        let stop = CancellationToken::new();
        let (supervisor, handle) = Supervisor::new(script.clone(), script.clone(), plan);
        let ended = tokio::spawn(supervisor.run(stop.clone()));
        Self {
            script,
            handle,
            stop,
            ended,
        }
    }

    async fn until(&self, what: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let mut view = self.handle.watch();
        let found = tokio::time::timeout(Duration::from_secs(36_000), view.wait_for(what)).await;
        found.expect("it comes about").unwrap().clone()
    }

    async fn connected(&self) -> Snapshot {
        self.until(|view| matches!(view.status, TunnelStatus::Connected(_)))
            .await
    }
}

fn url(view: &Snapshot) -> &str {
    match &view.status {
        TunnelStatus::Connected(info) => &info.public_url,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn it_connects_is_proven_and_stops() {
    let run = Run::start(Scripted::new([Ok("https://a")]), plan(10));
    let view = run.connected().await;
    assert_eq!((url(&view), view.restarts), ("https://a", 0));
    assert!(view.health.unwrap().proven);
    run.stop.cancel();
    run.ended.await.unwrap().unwrap();
    assert_eq!(run.handle.watch().borrow().status, TunnelStatus::Stopped);
    assert_eq!(run.script.count("stop"), 1);
}

#[tokio::test(start_paused = true)]
async fn another_sites_answer_is_not_ours() {
    let script = Scripted::new([Ok("https://a")]);
    script.script().probes = [ProbeOutcome::Wrong("status 200 from somebody else".into())].into();
    let run = Run::start(script, plan(1));
    let error = run.ended.await.unwrap().unwrap_err();
    assert!(error.message.contains("does not lead here"), "{error}");
    assert_eq!(run.script.count("start"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_new_name_has_time_to_become_known() {
    let script = Scripted::new([Ok("https://a")]);
    let wrong = || ProbeOutcome::Wrong("status 530".into());
    script.script().probes = [wrong(), wrong(), ProbeOutcome::Proven(Duration::ZERO)].into();
    let run = Run::start(script, plan(0));
    assert!(run.connected().await.health.unwrap().proven);
    assert_eq!(run.script.count("start"), 1);
}

#[tokio::test(start_paused = true)]
async fn where_the_public_name_cannot_be_asked_it_says_so() {
    let script = Scripted::new([Ok("https://a")]);
    script.script().probes = [ProbeOutcome::Unreachable("no such name".into())].into();
    let run = Run::start(script, plan(0));
    let health = run.connected().await.health.unwrap();
    assert!(health.healthy && !health.proven && matches!(health.public, Check::Unknown(_)));
    // And it is no reason to restart, ever.
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(run.script.count("start"), 1);
    // Unless the backend itself says that it is down.
    run.script.script().backend_bad = true;
    run.until(|view| view.restarts == 1).await;
}

#[tokio::test(start_paused = true)]
async fn three_failed_looks_restart_it_and_a_good_one_begins_anew() {
    let script = Scripted::new([Ok("https://a")]);
    let run = Run::start(script, plan(0));
    run.connected().await;
    let bad = || ProbeOutcome::Unreachable("silence".into());
    let good = || ProbeOutcome::Proven(Duration::ZERO);
    run.script.script().probes = [bad(), bad(), good(), bad(), bad(), bad(), good()].into();
    let begun = Instant::now();
    let view = run.until(|view| view.restarts == 1).await;
    assert!(view.last_error.unwrap().contains("unhealthy 3 times in a row"));
    assert_eq!(begun.elapsed().as_secs() / 30, 6);
    run.connected().await;
    assert_eq!((run.script.count("start"), run.script.count("stop")), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_fatal_word_stops_it_at_once() {
    let run = Run::start(
        Scripted::new([Err(TunnelError::fatal("bad token", "get a good one"))]),
        plan(10),
    );
    run.ended.await.unwrap().unwrap_err();
    assert_eq!(run.script.count("start"), 1);
    let view = run.handle.watch().borrow().clone();
    assert!(matches!(view.status, TunnelStatus::Error { message } if message.contains("get a good one")));
}

#[tokio::test(start_paused = true)]
async fn it_is_given_up_after_the_last_try_and_not_before() {
    let run = Run::start(Scripted::new([Err(TunnelError::passing("no network"))]), plan(4));
    let error = run.ended.await.unwrap().unwrap_err();
    assert!(error.message.contains("given up after 4 tries"), "{error}");
    assert_eq!((run.script.count("start"), run.script.count("stop")), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn without_reconnect_the_first_failure_is_the_last() {
    let mut plan = plan(10);
    plan.reconnect.enabled = false;
    let run = Run::start(Scripted::new([Err(TunnelError::passing("no network"))]), plan);
    run.ended.await.unwrap().unwrap_err();
    assert_eq!(run.script.count("start"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_healthy_minute_forgets_failed_tries() {
    let script = Scripted::new([Ok("https://a")]);
    let run = Run::start(script, plan(2));
    for _ in 0..6 {
        run.connected().await;
        tokio::time::sleep(Duration::from_secs(61)).await;
        run.script.tell(Change::Ended(TunnelError::passing("it died")));
        let view = run
            .until(|view| matches!(view.status, TunnelStatus::Reconnecting { .. }))
            .await;
        assert_eq!(view.status, TunnelStatus::Reconnecting { attempt: 1 });
    }
    // One that dies again and again is given up.
    for _ in 0..3 {
        run.until(|view| {
            matches!(
                view.status,
                TunnelStatus::Connected(_) | TunnelStatus::Error { .. }
            )
        })
        .await;
        run.script.tell(Change::Ended(TunnelError::passing("it died")));
        run.until(|view| !matches!(view.status, TunnelStatus::Connected(_)))
            .await;
    }
    let error = run.ended.await.unwrap().unwrap_err();
    assert!(error.message.contains("given up after 2 tries"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_was_asked_too_often_is_left_alone() {
    let limited = TunnelError::passing("too often").after(Duration::from_secs(180));
    let script = Scripted::new([Err(limited), Ok("https://a")]);
    let begun = Instant::now();
    let run = Run::start(script, plan(10));
    run.connected().await;
    assert!(begun.elapsed() >= Duration::from_secs(180));
}

#[tokio::test(start_paused = true)]
async fn a_changed_address_is_told_with_the_one_before() {
    let script = Scripted::new([Ok("https://a"), Ok("https://b")]);
    let run = Run::start(script, plan(10));
    run.connected().await;
    run.script.tell(Change::Ended(TunnelError::passing("it died")));
    let view = run.until(|view| view.previous_url.is_some()).await;
    assert_eq!(
        (url(&view), view.previous_url.as_deref()),
        ("https://b", Some("https://a"))
    );
    // Also without a restart.
    run.script.tell(Change::Url("https://c".into()));
    let view = run
        .until(|view| view.previous_url.as_deref() == Some("https://b"))
        .await;
    assert_eq!((url(&view), view.restarts), ("https://c", 1));
}

#[tokio::test(start_paused = true)]
async fn a_look_can_be_asked_for_and_stopping_interrupts_a_pause() {
    let script = Scripted::new([
        Ok("https://a"),
        Err(TunnelError::passing("no").after(Duration::from_secs(9999))),
    ]);
    let run = Run::start(script, plan(0));
    run.connected().await;
    run.script.script().backend_bad = true;
    assert!(!run.handle.check().await.unwrap().healthy);
    run.script.tell(Change::Ended(TunnelError::passing("it died")));
    run.until(|view| view.last_error.as_deref() == Some("no")).await;
    run.stop.cancel();
    run.ended.await.unwrap().unwrap();
}

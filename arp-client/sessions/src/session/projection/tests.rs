use super::*;
use crate::host::{RunEnd, RunStart, StopReason};
use crate::log::{Kind, Record};
use crate::model::{MessageStatus, Origin, ProblemKind, Time};
use arp_agents::claude::Claude;
use arp_agents::driver::{Decision, Exit, PermissionMode};
use arp_agents::event::Usage;
use serde_json::{Value, json};

/// A log that is being written.
#[derive(Default)]
struct Log {
    records: Vec<Record>,
    lines: u64,
}

impl Log {
    fn add(&mut self, kind: Kind, payload: &Value) -> Record {
        self.lines += u64::from(kind == Kind::Out);
        let record = Record {
            kind,
            ends_batch: true,
            seq: self.records.len() as u64 + 1,
            line: self.lines,
            time_ms: 1000 + self.records.len() as u64,
            payload: payload.to_string().into_bytes(),
        };
        self.records.push(record.clone());
        record
    }
}

/// A projection that is fed as an actor does it: what it sends comes back through the log.
struct Stage {
    log: Log,
    state: Projection,
    /// Events with the record that each came from.
    events: Vec<(u64, Value)>,
    effects: Vec<Effect>,
}

fn meta() -> Meta {
    Meta {
        id: "s".into(),
        executor: "claude".into(),
        agent_session_id: None,
        title: None,
        first_message: None,
        project_path: "/p".into(),
        model: None,
        model_chosen: false,
        permission_mode: PermissionMode::Default,
        allowed_tools: Vec::new(),
        status: Status::Starting,
        turn: None,
        turns: 0,
        last_turn: None,
        activity: None,
        usage: None,
        models: Vec::new(),
        agent_mode: None,
        problem: None,
        never_resumes: None,
        left_running: Vec::new(),
        granted: Vec::new(),
        error: None,
        exit_code: None,
        exit_signal: None,
        parent_id: None,
        origin: Origin::Api,
        beginning: crate::model::Beginning::New,
        opened_ms: 0,
        starts_ms: None,
        used_before: Usage::default(),
        runs: 1,
        run_after: 0,
        last_seq: 0,
        total_lines: 0,
        created_ms: 0,
        updated_ms: 0,
        ended_ms: None,
        client_id: None,
    }
}

fn projection(events_from: u64) -> Projection {
    let settings = Settings {
        agent: Some(Arc::new(Claude::new())),
        approval_timeout: Some(Duration::from_secs(60)),
        allow_bypass: false,
    };
    Projection::new(meta(), VecDeque::new(), settings, events_from)
}

impl Stage {
    /// A session whose agent is ready.
    fn new() -> Self {
        let mut stage = Self {
            log: Log::default(),
            state: projection(0),
            events: Vec::new(),
            effects: Vec::new(),
        };
        let start = RunStart {
            run: 0,
            pid: 1,
            options: None,
        };
        stage.feed(Kind::RunStart, &json!(start));
        let ready = json!({"type": "control_response", "response":
            {"subtype": "success", "request_id": "arp-0-0", "response": {}}});
        stage.feed(Kind::Out, &ready);
        stage
    }

    fn feed(&mut self, kind: Kind, payload: &Value) {
        let record = self.log.add(kind, payload);
        let step = self.state.record(&record);
        self.take(step);
    }

    fn take(&mut self, step: Step) {
        let from = step.from;
        let events = step.events.iter().map(|json| serde_json::from_str(json).unwrap());
        self.events.extend(events.map(|event: Value| (from, event)));
        for effect in step.effects {
            if let Effect::Send { mark, lines, .. } = &effect {
                let (mark, lines) = (mark.clone(), lines.clone());
                if let Some(mark) = mark {
                    self.feed(Kind::Mark, &json!(mark));
                }
                for line in lines {
                    let line: Value = serde_json::from_str(&line).unwrap();
                    self.feed(Kind::In, &line);
                }
            } else {
                self.effects.push(effect);
            }
        }
    }

    fn say(&mut self, text: &str) {
        self.state.queue.push_back(Message {
            id: format!("m-{text}"),
            client_id: None,
            text: text.into(),
            created_at: Time(0),
            status: MessageStatus::Queued,
        });
        let step = self.state.dispatch(5).unwrap();
        self.take(step);
        self.feed(
            Kind::Out,
            &json!({"type": "system", "subtype": "init", "session_id": "agent", "permissionMode": "default"}),
        );
    }

    fn result(&mut self, fields: Value) {
        let mut line = json!({"type": "result", "subtype": "success", "is_error": false, "result": "",
            "duration_ms": 1, "total_cost_usd": 0.1, "modelUsage": {}, "terminal_reason": "completed"});
        line.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        self.feed(Kind::Out, &line);
    }

    fn ask(&mut self) -> String {
        self.feed(
            Kind::Out,
            &json!({"type": "assistant", "message": {"id": "m", "content":
                [{"type": "tool_use", "id": "t", "name": "Bash", "input": {"command": "touch a"}}]}}),
        );
        self.feed(
            Kind::Out,
            &json!({"type": "control_request", "request_id": "q", "request": {"subtype": "can_use_tool",
                "tool_name": "Bash", "input": {"command": "touch a"}, "tool_use_id": "t"}}),
        );
        self.state.view().approvals[0].approval.id.clone()
    }

    fn end(&mut self, reason: Option<&str>) {
        let exit = Exit {
            code: Some(0),
            signal: None,
        };
        let end = RunEnd {
            exit,
            reason: reason.map(str::to_owned),
            left: Vec::new(),
            void: Vec::new(),
            resolved: Vec::new(),
            cut_turn: false,
        };
        self.feed(Kind::RunEnd, &json!(end));
    }

    fn of_type(&self, kind: &str) -> Vec<&Value> {
        let events = self.events.iter().map(|(_, event)| event);
        events.filter(|event| event["type"] == kind).collect()
    }
}

/// A session with an approval that was asked at this time.
pub(in crate::session) fn waiting_since(asked_ms: u64) -> Projection {
    let mut stage = Stage::new();
    stage.say("one");
    stage.ask();
    let mut state = stage.state;
    for waiting in &mut state.run.as_mut().unwrap().approvals {
        waiting.view.created_at = Time(asked_ms);
    }
    state
}

fn allow(input: Option<Value>) -> Decision {
    Decision::Allow {
        for_session: false,
        updated_input: input,
        answers: [].into(),
        permission_mode: None,
    }
}

#[test]
fn a_log_that_is_read_again_gives_the_events_that_are_missing_and_no_other() {
    let mut stage = Stage::new();
    stage.say("one");
    let id = stage.ask();
    let (_, step) = stage.state.decide(&id, allow(None)).unwrap();
    stage.take(step);
    stage.feed(
        Kind::Out,
        &json!({"type": "stream_event", "event": {"type": "message_start", "message": {"id": "n"}}}),
    );
    for text in ["he", "llo"] {
        stage.feed(
            Kind::Out,
            &json!({"type": "stream_event", "event": {"type": "content_block_delta", "index": 0,
                "delta": {"type": "text_delta", "text": text}}}),
        );
    }
    stage.result(json!({}));
    stage.say("two");
    stage.ask();
    stage.end(Some("killed"));
    assert!(stage.events.len() > 12, "{:?}", stage.events);
    for known in 0..=stage.log.records.len() as u64 {
        let mut again = projection(known);
        again.replay();
        let mut events = Vec::new();
        for record in &stage.log.records {
            let step = again.record(record);
            events.extend(step.events.iter().map(|json| {
                let event: Value = serde_json::from_str(json).unwrap();
                (step.from, event)
            }));
        }
        let missing: Vec<_> = stage
            .events
            .iter()
            .filter(|(from, _)| *from > known)
            .cloned()
            .collect();
        assert_eq!(events, missing, "events up to record {known} are known");
        assert!(again.view().approvals.is_empty());
    }
}

#[test]
fn a_decision_in_the_moment_in_which_the_agent_dies_did_not_arrive() {
    let mut stage = Stage::new();
    stage.say("one");
    let id = stage.ask();
    // It is on its way, and the log ends before it.
    stage.state.decide(&id, allow(None)).unwrap();
    stage.end(Some("killed"));
    let resolved = stage.of_type("approval_resolved");
    assert_eq!(resolved.len(), 1);
    assert_eq!(
        (&resolved[0]["id"], &resolved[0]["outcome"]),
        (&json!(id), &json!("void"))
    );
    assert!(stage.state.was_resolved(&id));
}

#[test]
fn an_edited_command_is_recorded_as_asked_and_as_run() {
    let mut stage = Stage::new();
    stage.say("one");
    let id = stage.ask();
    let ran = json!({"command": "touch b"});
    let (resolution, step) = stage.state.decide(&id, allow(Some(ran.clone()))).unwrap();
    stage.take(step);
    let edited = json!({"asked": {"command": "touch a"}, "ran": ran});
    assert_eq!(json!(resolution.edited), edited);
    assert_eq!(stage.of_type("approval_resolved")[0]["edited"], edited);
    let card = stage.of_type("tool_call").pop().unwrap();
    assert_eq!(
        (&card["id"], &card["input"], &card["title"]),
        (&json!("t"), &ran, &json!("touch b"))
    );
}

#[test]
fn the_mode_is_the_one_that_the_agent_says_it_has() {
    let mut stage = Stage::new();
    stage.state.meta.permission_mode = PermissionMode::Plan;
    stage.say("one");
    assert_eq!(stage.state.meta.permission_mode, PermissionMode::Default);
    stage.feed(
        Kind::Out,
        &json!({"type": "system", "subtype": "status", "permissionMode": "acceptEdits"}),
    );
    let view = stage.state.view();
    assert_eq!(view.permission_mode, PermissionMode::AcceptEdits);
    assert_eq!(view.agent_mode.as_deref(), Some("acceptEdits"));
    // And it is resumed in that.
    assert_eq!(
        stage.state.options(1, &Claude::new()).permission_mode,
        PermissionMode::AcceptEdits
    );
    let (told, step) = stage.state.set_mode(PermissionMode::Plan).unwrap();
    stage.take(step);
    assert!(told);
    assert_eq!(
        stage.state.meta.permission_mode,
        PermissionMode::AcceptEdits,
        "not yet"
    );
    stage.feed(
        Kind::Out,
        &json!({"type": "control_response", "response": {"subtype": "success", "request_id": "arp-0-1",
            "response": {"mode": "plan"}}}),
    );
    assert_eq!(stage.state.meta.permission_mode, PermissionMode::Plan);
}

#[test]
fn what_went_wrong_is_shown_until_the_next_turn() {
    let mut stage = Stage::new();
    stage.say("one");
    stage.result(json!({"is_error": true, "api_error_status": 529, "result": "Overloaded"}));
    let problem = stage.state.view().problem.unwrap();
    assert_eq!(
        (problem.kind, problem.api_status),
        (ProblemKind::ApiError, Some(529))
    );
    assert!(problem.can_retry && problem.message.contains("Overloaded"));
    stage.say("two");
    assert_eq!(stage.state.view().problem, None);

    let why = "arpc was stopped, and parked its sessions";
    let step = stage.state.stop(StopReason::Parked, Some(why.into()));
    stage.take(step);
    assert!(matches!(
        stage.effects.last(),
        Some(Effect::End { keep_tools: true })
    ));
    stage.result(
        json!({"subtype": "error_during_execution", "is_error": true, "terminal_reason": "aborted_tools"}),
    );
    stage.end(None);
    let view = stage.state.view();
    let problem = view.problem.unwrap();
    assert_eq!(
        (view.status, problem.kind),
        (Status::Parked, ProblemKind::TurnCut)
    );
    assert!(problem.message.contains(why), "{}", problem.message);
    assert_eq!(stage.of_type("status").pop().unwrap()["message"], why);
}

#[test]
fn a_resume_that_fails_says_so() {
    let mut stage = Stage::new();
    stage.say("one");
    stage.result(json!({}));
    stage.end(None);
    let start = RunStart {
        run: 1,
        pid: 2,
        options: None,
    };
    stage.feed(Kind::RunStart, &json!(start));
    stage.result(json!({"subtype": "error_during_execution", "errors": ["No conversation found"]}));
    stage.end(None);
    let view = stage.state.view();
    let problem = view.problem.unwrap();
    assert_eq!(
        (view.status, problem.kind),
        (Status::Failed, ProblemKind::ResumeFailed)
    );
    assert!(problem.message.contains("No conversation found"));
}

#[test]
fn texts_that_came_in_fragments_are_told_whole_when_the_turn_is_over() {
    let mut stage = Stage::new();
    stage.say("one");
    stage.feed(
        Kind::Out,
        &json!({"type": "stream_event", "event": {"type": "message_start", "message": {"id": "n"}}}),
    );
    for text in ["half a ", "sentence"] {
        stage.feed(
            Kind::Out,
            &json!({"type": "stream_event", "event": {"type": "content_block_delta", "index": 0,
                "delta": {"type": "text_delta", "text": text}}}),
        );
    }
    stage.result(json!({"subtype": "error_during_execution", "is_error": true, "terminal_reason": "aborted_streaming"}));
    let whole = stage.of_type("text").pop().unwrap();
    assert_eq!(
        (&whole["text"], &whole["delta"]),
        (&json!("half a sentence"), &json!(false))
    );
}

#[test]
fn approvals_that_only_readers_know_of_end_too() {
    let mut stage = Stage::new();
    stage.say("one");
    let mut end = RunEnd::unseen("the power failed".into());
    end.void = vec!["s.0.q".into()];
    end.cut_turn = true;
    stage.feed(Kind::RunEnd, &json!(end));
    assert_eq!(stage.of_type("approval_resolved")[0]["id"], "s.0.q");
    assert_eq!(stage.state.view().problem.unwrap().kind, ProblemKind::TurnCut);
}

#[test]
fn what_is_allowed_for_the_session_is_remembered_for_those_who_would_steer_it() {
    let mut stage = Stage::new();
    stage.say("one");
    let suggestion = json!({"type": "addRules", "behavior": "allow", "destination": "session",
        "rules": [{"toolName": "Bash", "ruleContent": "ls:*"}]});
    let ask = |id: &str| {
        json!({"type": "control_request", "request_id": id, "request": {"subtype": "can_use_tool",
            "tool_name": "Bash", "input": {"command": "ls"}, "tool_use_id": id, "permission_suggestions": [suggestion]}})
    };
    for (id, for_session, granted) in [("q1", false, 0), ("q2", true, 1), ("q3", true, 1)] {
        stage.feed(Kind::Out, &ask(id));
        let approval = stage.state.view().approvals[0].approval.clone();
        assert!(approval.can_allow_session);
        let decision = Decision::Allow {
            for_session,
            updated_input: None,
            answers: [].into(),
            permission_mode: None,
        };
        let (_, step) = stage.state.decide(&approval.id, decision).unwrap();
        assert!(
            stage.state.view().granted.len() <= granted,
            "not before it arrived"
        );
        stage.take(step);
        assert_eq!(stage.state.view().granted.len(), granted);
    }
    assert!(stage.state.view().granted[0].contains("ls:*"));
}

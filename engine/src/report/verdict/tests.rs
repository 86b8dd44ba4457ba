use super::*;
use crate::clock::{MICRO, MILLI};

fn spread(count: u64, p50: Nanos, p99: Nanos, max: Nanos) -> Spread {
    Spread { count, p50_ns: p50, p99_ns: p99, max_ns: max }
}

/// An open loop of so many requests with these delays, of which so many were late.
fn open(requests: u64, late: u64, (p50, p99, max): (Nanos, Nanos, Nanos)) -> Evidence {
    Evidence {
        requests,
        scheduled: requests,
        sends: Delays { spread: Some(spread(requests, p50, p99, max)), late },
        rate: Some((94.0, 94.0)),
        latency: Some(175 * MILLI),
        in_flight: 20,
        seconds: 10.0,
        ..Evidence::default()
    }
}

/// A closed loop of so many requests that followed another.
fn closed(refills: u64, late: u64, (p50, p99, max): (Nanos, Nanos, Nanos)) -> Evidence {
    let spread = (refills > 0).then(|| spread(refills, p50, p99, max));
    Evidence {
        requests: refills + 16,
        scheduled: 0,
        sends: Delays::default(),
        refills: Delays { spread, late },
        rate: None,
        ..open(0, 0, (0, 0, 0))
    }
}

const FAST: (Nanos, Nanos, Nanos) = (5 * MICRO, 60 * MICRO, 300 * MICRO);

fn on(evidence: &Evidence) -> Verdict {
    Verdict::on(evidence).unwrap()
}

fn grade(evidence: &Evidence) -> Grade {
    on(evidence).grade
}

#[test]
fn a_rate_that_was_kept_is_no_limit_however_jittery() {
    let jittery = open(469, 25, (20 * MICRO, 2_510 * MICRO, 9 * MILLI));
    let said = on(&jittery);
    assert_eq!(said.grade, Grade::Degraded);
    assert_eq!(
        said.sentence,
        "25 of 469 requests (5.3%) were sent 1 ms or more after their time (p99 2.51 ms = 1.4% of the median latency, at \
         most 9.00 ms); 94.0 requests/s sent, as planned; give the client more or freer cores (--cores)."
    );
    // The same with a rate that was not kept, and beside a latency of which it is a large part.
    let slow = Evidence { rate: Some((100.0, 80.0)), ..jittery.clone() };
    assert_eq!(grade(&slow), Grade::Limit);
    assert!(on(&slow).sentence.contains("80.0 of 100.0 planned requests/s sent"), "{}", on(&slow).sentence);
    assert_eq!(grade(&Evidence { latency: Some(20 * MILLI), ..jittery }), Grade::Limit);
}

#[test]
fn one_late_request_in_a_hundred_changes_nothing() {
    let late = |n| open(1000, n, (5 * MICRO, 900 * MICRO, 3 * MILLI));
    assert_eq!((grade(&late(0)), grade(&late(10)), grade(&late(11))), (Grade::Sound, Grade::Sound, Grade::Degraded));
    let said = on(&late(0));
    assert_eq!(
        said.sentence,
        "all requests were sent within 3.00 ms of their time (p99 900 µs); 94.0 requests/s sent, as planned."
    );
    assert_eq!((said.findings.len(), on(&late(10)).findings[0].touched), (0, 10));
}

#[test]
fn a_connection_that_the_client_may_not_have_is_its_limit_in_every_loop() {
    let waits = Some(spread(870, 5 * SECOND, 8 * SECOND, 8_500 * MILLI));
    let connections = Some((50, "AIPERF_HTTP_CONNECTION_LIMIT".to_owned()));
    for base in [open(1000, 870, (5 * SECOND, 8 * SECOND, 9 * SECOND)), closed(1000, 0, FAST)] {
        let said = on(&Evidence { blocked: waits, connections: connections.clone(), in_flight: 920, ..base });
        assert_eq!((said.grade, said.findings[0].cause), (Grade::Limit, "connection_limit"));
        assert!(said.sentence.contains("waited for a connection for up to 8.50 s, since only 50"), "{}", said.sentence);
        let remedy = said.findings[0].remedy.as_deref();
        assert_eq!(remedy, Some("raise AIPERF_HTTP_CONNECTION_LIMIT to allow 920 connections or more"));
    }
    let few = Evidence { blocked: Some(spread(9, MILLI, MILLI, MILLI)), ..closed(1000, 0, FAST) };
    assert_eq!(grade(&few), Grade::Sound);
    let none = Evidence { local_limit: 30, failed: 30, ..open(1000, 0, FAST) };
    assert_eq!((grade(&none), on(&none).findings[0].cause), (Grade::Limit, "local_limit"));
}

#[test]
fn a_client_that_stood_still_is_not_sound() {
    let stalls = Stalls { count: 1, longest: 400 * MILLI, sum: 400 * MILLI, longest_at: SECOND };
    let stood = Evidence { stalled: 16, stalls, ..closed(474, 0, FAST) };
    let said = on(&stood);
    assert_eq!((said.grade, said.findings[0].cause), (Grade::Degraded, "stall"));
    let what = "the client stood still or was too busy to read for 400.00 ms at 1.00 s, with 16 of 490 requests (3.3%) in \
                flight or due";
    assert!(said.sentence.starts_with(what), "{}", said.sentence);
    // Few requests are evidence enough where the pause is a large part of what was measured.
    assert_eq!(grade(&Evidence { requests: 32, ..stood.clone() }), Grade::Degraded);
    assert_eq!(grade(&Evidence { seconds: 2.0, ..stood.clone() }), Grade::Limit);
    assert_eq!(grade(&Evidence { requests: 10_000, ..stood }), Grade::Sound);
}

#[test]
fn answers_that_may_have_lain_unread_are_named() {
    let unread = Evidence { unread: Some(spread(300, 2 * MILLI, 5 * MILLI, 6 * MILLI)), ..closed(484, 0, FAST) };
    let said = on(&unread);
    assert_eq!((said.grade, said.findings[0].cause), (Grade::Degraded, "unread"));
    assert!(said.sentence.contains("lain unread here for 1 ms or more (median 2.00 ms"), "{}", said.sentence);
    assert_eq!(grade(&Evidence { busy: Some(0.99), ..unread.clone() }), Grade::Limit);
    assert_eq!(grade(&Evidence { busy: Some(0.6), ..unread }), Grade::Degraded);
}

#[test]
fn a_limit_that_was_asked_for_is_named_and_no_fault() {
    let evidence = Evidence {
        queued: 900,
        rate: Some((100.0, 24.0)),
        limits: Some("--concurrency 4".to_owned()),
        ..open(1000, 0, FAST)
    };
    let said = on(&evidence);
    assert_eq!((said.grade, said.findings[0].whose), (Grade::Sound, Whose::Settings));
    let what = "under --concurrency 4 24.0 of 100.0 planned requests/s were sent: raise it, or read Response Time";
    assert!(said.sentence.contains(what), "{}", said.sentence);
    assert!(!said.sentence.contains("as planned"), "{}", said.sentence);
}

#[test]
fn a_server_slow_to_accept_is_named_and_no_fault() {
    let connecting = Some(spread(100, SECOND, 3 * SECOND, 3 * SECOND));
    let said = on(&Evidence { connecting, ..open(1000, 0, FAST) });
    assert_eq!((said.grade, said.findings[0].whose), (Grade::Sound, Whose::Server));
    assert!(said.sentence.contains("to be accepted, for up to 3.00 s"), "{}", said.sentence);
}

#[test]
fn without_evidence_nothing_is_judged() {
    let doubt = |evidence: &Evidence, what: &str| {
        let said = on(evidence);
        assert_eq!(said.grade, Grade::NotJudged, "{}", said.sentence);
        assert!(said.sentence.contains(what), "{}", said.sentence);
    };
    doubt(&closed(0, 0, FAST), "no slot was ever freed");
    doubt(&open(1, 0, FAST), "1 of them to judge by is too few");
    doubt(&open(199, 1, (5 * MICRO, MILLI, 2 * MILLI)), "199 of them to judge by are too few");
    doubt(&Evidence { failed: 600, ..open(1000, 0, FAST) }, "most requests failed");
    let kept = Evidence { queued: 1000, sends: Delays::default(), ..open(1000, 0, FAST) };
    doubt(&kept, "every request waited for a slot");
    assert_eq!(grade(&open(20, 0, FAST)), Grade::Sound, "the worst of few is known as well");
    // What was cut as asked, or by the end, did not fail.
    assert_eq!(grade(&Evidence { abandoned: 500, cut: 400, ..open(1000, 0, FAST) }), Grade::Sound);
    // And a fault is one, whatever became of the requests.
    let late = open(1000, 500, (MILLI, 50 * MILLI, SECOND));
    assert_eq!(grade(&Evidence { failed: 900, ..late }), Grade::Limit);
    assert_eq!(Verdict::on(&Evidence::default()), None);
}

#[test]
fn a_slot_that_stays_empty_for_long_is_the_client_s_doing() {
    let said = on(&closed(200, 0, FAST));
    assert_eq!(said.sentence, "freed slots were refilled within 60 µs (p99), 300 µs at most.");
    assert_eq!(grade(&closed(200, 9, (10 * MICRO, 1_500 * MICRO, 3 * MILLI))), Grade::Degraded);
    assert_eq!(grade(&closed(200, 9, (10 * MICRO, 40 * MILLI, 50 * MILLI))), Grade::Limit);
}

//! The collector on a core of its own: a glommio executor where io_uring is to be had, a plain loop elsewhere. Either way the
//! log holds every record, in order, with its payload.

use maser_engine::clock::{Anchor, Instant};
use maser_engine::collector::{Collector, Plain, Source, run_on_glommio};
use maser_engine::credit::{Issued, Progress, StopSignal};
use maser_engine::log::{self, Header, Kind, Log, PhaseInfo, PhaseMark};
use maser_engine::record::{Record, part, put_part};
use maser_engine::ring;
use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

const RECORDS: u64 = 20_000;

fn preamble() -> Vec<u8> {
    let mut bytes = log::MAGIC.to_vec();
    let header = Header {
        maser_version: "0".into(),
        benchmark_id: "0".into(),
        run_key: 1,
        anchor: Anchor { mono: Instant(1), wall: 1 },
        endpoint: "chat".into(),
        streaming: true,
        phases: vec![PhaseInfo { name: "profiling".into(), warmup: false }],
        use_server_token_count: true,
        export_level: "records".into(),
        ..Header::default()
    };
    log::put_json(&mut bytes, Kind::Header, &header);
    bytes
}

fn payload(seq: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_part(&mut bytes, part::TEXT, "x".repeat(seq as usize % 50).as_bytes());
    bytes
}

#[test]
fn every_record_reaches_the_log_in_order() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut writer = file.reopen().unwrap();
    let preamble = preamble();
    writer.write_all(&preamble).unwrap();
    let (mut records, source) = ring::frames(1024, 1 << 16);
    let (mut marks_in, marks) = ring::ring(1);
    let (issued, progress) = (Arc::<Issued>::default(), Arc::<Progress>::default());
    let source = Source { records: source, progress: progress.clone() };
    let failure = Arc::new(Mutex::new(None));
    let collecting = {
        let (issued, failure) = (issued.clone(), failure.clone());
        std::thread::spawn(move || {
            let collector = Collector::new(vec![source], marks, issued, vec![false], Arc::default());
            let stop = Arc::new(StopSignal::default());
            let plain = Plain::new(collector, (writer, preamble.len() as u64), stop, failure);
            run_on_glommio(&Rc::new(RefCell::new(plain)), 0);
        })
    };
    for seq in 0..RECORDS {
        let payload = payload(seq);
        let record = Record { seq, payload_len: payload.len() as u32, ..bytemuck::Zeroable::zeroed() };
        while records.push(record, &payload).is_err() {
            std::thread::yield_now();
        }
    }
    marks_in.push(PhaseMark { issued: RECORDS, ..PhaseMark::default() }).unwrap();
    issued.credits.store(RECORDS, Ordering::Release);
    progress.ended.store(true, Ordering::Release);
    issued.ended.store(true, Ordering::Release);
    collecting.join().unwrap();
    assert!(failure.lock().unwrap().is_none());
    let log = Log::open(file.path()).unwrap();
    assert_eq!((log.len() as u64, log.damage.clone(), log.phases[0].issued), (RECORDS, vec![], RECORDS));
    assert_eq!(log.end.as_ref().unwrap().records, RECORDS);
    for (want, (record, got)) in log.records().enumerate() {
        assert_eq!((record.seq, got.text.len()), (want as u64, want % 50));
    }
}

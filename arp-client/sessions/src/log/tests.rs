use super::*;
use std::fs::OpenOptions;
use std::io::Write;

fn write_lines(path: &Path, count: u64, size: usize) {
    let mut writer = LogWriter::open(path, false).unwrap();
    for _ in 0..count {
        let line = writer.end().line + 1;
        writer
            .append(Kind::Out, line, true, 7, format!("{line:0>size$}").as_bytes())
            .unwrap();
        writer.flush().unwrap();
    }
}

fn all(path: &Path) -> Vec<Record> {
    let mut reader = LogReader::open(path).unwrap();
    std::iter::from_fn(|| reader.next_record().unwrap()).collect()
}

#[test]
fn records_come_back_as_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raw.log");
    let mut writer = LogWriter::open(&path, false).unwrap();
    writer.append(Kind::RunStart, 0, true, 1, b"{}").unwrap();
    writer
        .append(Kind::Out, 1, true, 2, "größe\u{2028}\n".as_bytes())
        .unwrap();
    writer.append(Kind::In, 1, false, 3, b"").unwrap();
    writer.flush().unwrap();

    let records = all(&path);
    assert_eq!(
        records.iter().map(|record| record.seq).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(records[1].payload, "größe\u{2028}\n".as_bytes());
    assert_eq!(
        (records[2].kind, records[2].ends_batch, records[2].time_ms),
        (Kind::In, false, 3)
    );
}

#[test]
fn a_torn_record_at_the_end_is_cut_wherever_it_was_torn() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raw.log");
    write_lines(&path, 3, 50);
    let whole = std::fs::read(&path).unwrap();
    let record = whole.len() / 3;
    for cut in 1..record {
        std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        let mut writer = LogWriter::open(&path, false).unwrap();
        assert_eq!(writer.end().seq, 2, "cut {cut}");
        writer.append(Kind::Out, 3, true, 0, b"again").unwrap();
        writer.flush().unwrap();
        assert_eq!(all(&path)[2].payload, b"again");
    }
}

#[test]
fn garbage_after_the_end_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raw.log");
    write_lines(&path, 5000, 100);
    OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(&[0xff; 300])
        .unwrap();
    let writer = LogWriter::open(&path, false).unwrap();
    assert_eq!((writer.end().seq, writer.end().line), (5000, 5000));
    assert_eq!(all(&path).len(), 5000);
}

#[test]
fn an_unfinished_batch_is_cut_when_batches_must_be_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.log");
    for size in [10, 40_000] {
        std::fs::remove_file(&path).ok();
        std::fs::remove_file(index_path(&path)).ok();
        let mut writer = LogWriter::open(&path, true).unwrap();
        writer.append(Kind::Event, 1, true, 0, b"a").unwrap();
        for _ in 0..5 {
            writer
                .append(Kind::Event, 2, false, 0, &vec![b'x'; size])
                .unwrap();
        }
        writer.flush().unwrap();
        drop(writer);
        let mut writer = LogWriter::open(&path, true).unwrap();
        assert_eq!(writer.end().seq, 1);
        writer.append(Kind::Event, 2, true, 0, b"b").unwrap();
        writer.flush().unwrap();
        assert_eq!(all(&path).len(), 2);
        let mut reader = LogReader::open(&path).unwrap();
        reader.seek_seq(2).unwrap();
        assert_eq!(reader.next_record().unwrap().unwrap().payload, b"b");
    }
}

#[test]
fn any_line_is_found_with_and_without_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raw.log");
    let mut writer = LogWriter::open(&path, false).unwrap();
    let mut line = 0;
    for number in 0..20_000_u64 {
        let kind = if number % 3 == 0 { Kind::In } else { Kind::Out };
        line += u64::from(kind == Kind::Out);
        writer
            .append(kind, line, true, 0, line.to_string().as_bytes())
            .unwrap();
    }
    writer.flush().unwrap();
    for with_index in [true, false] {
        if !with_index {
            std::fs::remove_file(index_path(&path)).unwrap();
        }
        let mut reader = LogReader::open(&path).unwrap();
        for wanted in [1, 2, 777, 1365, 5000, 13_333] {
            reader.seek_line(wanted).unwrap();
            let record = reader.next_record().unwrap().unwrap();
            assert_eq!((record.kind, record.line), (Kind::Out, wanted));
            reader.seek_seq(wanted).unwrap();
            assert_eq!(reader.next_record().unwrap().unwrap().seq, wanted);
        }
        reader.seek_line(13_334).unwrap();
        assert_eq!(reader.next_record().unwrap(), None);
    }
}

#[test]
fn a_lying_index_misleads_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raw.log");
    write_lines(&path, 3000, 100);
    let entries = std::fs::read(index_path(&path)).unwrap();
    let lies: Vec<u8> = entries.iter().map(|byte| byte ^ 0x15).collect();
    std::fs::write(index_path(&path), lies).unwrap();
    let mut reader = LogReader::open(&path).unwrap();
    reader.seek_line(2500).unwrap();
    assert_eq!(reader.next_record().unwrap().unwrap().line, 2500);
    assert_eq!(LogWriter::open(&path, false).unwrap().end().seq, 3000);
}

#[test]
fn a_reader_follows_a_writer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raw.log");
    let mut writer = LogWriter::open(&path, false).unwrap();
    let mut reader = LogReader::open(&path).unwrap();
    assert_eq!(reader.next_record().unwrap(), None);
    for line in 1..=100 {
        writer
            .append(Kind::Out, line, true, 0, &vec![b'x'; 3000])
            .unwrap();
        writer.flush().unwrap();
        assert_eq!(reader.next_record().unwrap().unwrap().line, line);
        assert_eq!(reader.next_record().unwrap(), None);
    }
}

#[test]
fn damage_in_the_middle_costs_what_is_damaged_and_no_record_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raw.log");
    write_lines(&path, 40, 30);
    let whole = std::fs::read(&path).unwrap();
    let size = whole.len() / 40;
    // Any byte of the twentieth record: header, payload, newline.
    for at in 0..size {
        for damage in [0xff_u8, 0, b'\n'] {
            let mut bytes = whole.clone();
            let place = 19 * size + at;
            if bytes[place] == damage {
                continue;
            }
            bytes[place] = damage;
            std::fs::write(&path, &bytes).unwrap();
            let seqs: Vec<u64> = all(&path).iter().map(|record| record.seq).collect();
            let left: Vec<u64> = (1..=40).filter(|seq| *seq != 20).collect();
            assert_eq!(seqs, left, "byte {at} is {damage}");
            assert_eq!(LogWriter::open(&path, false).unwrap().end().seq, 40);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), whole.len() as u64);
        }
    }
}

#[test]
fn a_region_of_zeros_is_passed_over_and_seeking_goes_across_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raw.log");
    write_lines(&path, 3000, 100);
    let mut bytes = std::fs::read(&path).unwrap();
    let size = bytes.len() / 3000;
    bytes[1000 * size + 7..1010 * size + 7].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    for with_index in [true, false] {
        if !with_index {
            std::fs::remove_file(index_path(&path)).unwrap();
        }
        let mut reader = LogReader::open(&path).unwrap();
        for (wanted, found) in [(1000, 1000), (1005, 1012), (1012, 1012), (2999, 2999)] {
            reader.seek_line(wanted).unwrap();
            assert_eq!(reader.next_record().unwrap().unwrap().line, found);
        }
    }
    assert_eq!(LogWriter::open(&path, false).unwrap().end().seq, 3000);
}

#[test]
fn numbers_go_on_above_those_that_were_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raw.log");
    write_lines(&path, 3, 10);
    let mut writer = LogWriter::open(&path, false).unwrap();
    writer.raise(10, 7);
    assert_eq!(writer.append(Kind::Out, 8, true, 0, b"x").unwrap(), 11);
    writer.flush().unwrap();
    let end = LogWriter::open(&path, false).unwrap().end();
    assert_eq!((end.seq, end.line), (11, 8));
}

#[cfg(unix)]
#[test]
fn a_folded_log_keeps_its_numbers_and_its_readers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.log");
    write_lines(&path, 2000, 100);
    let mut reader = LogReader::open(&path).unwrap();
    for _ in 0..500 {
        reader.next_record().unwrap().unwrap();
    }
    let mut writer = LogWriter::open(&path, false).unwrap();
    let mut drop = Spans::default();
    (1..=2000)
        .filter(|seq| seq % 10 != 0)
        .for_each(|seq| drop.push(seq));
    let before = writer.end();
    writer.fold(&drop).unwrap();
    assert!(writer.end().offset < before.offset / 9);
    assert_eq!((writer.end().seq, writer.end().line), (before.seq, before.line));
    writer.append(Kind::Out, 2001, true, 0, b"after").unwrap();
    writer.flush().unwrap();
    // Who was in the middle goes on there: first what its file had, then what came since.
    let mut seqs = Vec::new();
    while let Some(record) = reader.next_record().unwrap() {
        seqs.push(record.seq);
    }
    assert_eq!(seqs, (501..=2001).collect::<Vec<_>>());
    // Who comes later sees what is left.
    let left: Vec<u64> = all(&path).iter().map(|record| record.seq).collect();
    assert_eq!(left.len(), 201);
    let mut reader = LogReader::open(&path).unwrap();
    reader.seek_seq(1001).unwrap();
    assert_eq!(reader.next_record().unwrap().unwrap().seq, 1010);
}

#[test]
fn a_reader_that_saw_a_torn_record_reads_what_is_written_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raw.log");
    write_lines(&path, 2, 50);
    let whole = std::fs::read(&path).unwrap();
    for torn in 1..whole.len() / 2 {
        std::fs::write(&path, &whole[..whole.len() / 2 + torn]).unwrap();
        let mut reader = LogReader::open(&path).unwrap();
        assert_eq!(reader.next_record().unwrap().unwrap().seq, 1);
        assert_eq!(reader.next_record().unwrap(), None);
        let mut writer = LogWriter::open(&path, false).unwrap();
        writer.append(Kind::Out, 2, true, 0, &[b'y'; 300]).unwrap();
        writer.flush().unwrap();
        assert_eq!(
            reader.next_record().unwrap().unwrap().payload,
            [b'y'; 300],
            "torn after {torn}"
        );
    }
}

//! What was written, in order, and hence what may be found after a crash: a prefix of it.

use std::collections::BTreeMap;
use std::sync::Arc;

/// What a database holds.
pub(super) type Content = BTreeMap<Vec<u8>, Arc<[u8]>>;

/// What happens to one key; no value is a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub key: Vec<u8>,
    pub value: Option<Arc<[u8]>>,
}

impl Change {
    fn apply(&self, content: &mut Content) {
        match &self.value {
            Some(value) => drop(content.insert(self.key.clone(), Arc::clone(value))),
            None => drop(content.remove(&self.key)),
        }
    }
}

/// Changes that are made together: all of them or none. More than one are a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write(pub Vec<Change>);

impl Write {
    /// A write of one key.
    pub(super) fn of(key: Vec<u8>, value: Option<Arc<[u8]>>) -> Write {
        Write(vec![Change { key, value }])
    }

    fn apply(&self, content: &mut Content) {
        self.0.iter().for_each(|change| change.apply(content));
    }
}

impl std::fmt::Display for Write {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let changes: Vec<_> = self.0.iter().map(|c| format!("{} = {}", show(&c.key), of(c.value.as_ref()))).collect();
        f.write_str(&changes.join(" and "))
    }
}

/// All writes to one database.
#[derive(Clone, Default)]
pub(super) struct History {
    /// Those that were acknowledged.
    writes: Vec<Write>,
    /// The one that was going on when the crash came: it may have happened or not.
    in_flight: Option<Write>,
    /// So many of the writes were acknowledged as synced.
    synced: usize,
    /// What the database holds after all of the acknowledged writes.
    content: Content,
}

impl History {
    pub(super) fn content(&self) -> &Content {
        &self.content
    }

    /// The number of acknowledged writes.
    pub(super) fn len(&self) -> usize {
        self.writes.len()
    }

    pub(super) fn synced(&self) -> usize {
        self.synced
    }

    pub(super) fn acknowledged(&mut self, write: Write) {
        write.apply(&mut self.content);
        self.writes.push(write);
    }

    pub(super) fn interrupted(&mut self, write: Write) {
        self.in_flight = Some(write);
    }

    /// Everything acknowledged so far is synced.
    pub(super) fn all_synced(&mut self) {
        self.synced = self.writes.len();
    }

    /// All writes that may have happened, in order.
    fn possible(&self) -> impl Iterator<Item = &Write> {
        self.writes.iter().chain(&self.in_flight)
    }

    /// The longest prefix of the writes that leaves this content, if one does that has at least `least` writes.
    pub(super) fn prefix(&self, found: &Content, least: usize) -> Option<usize> {
        // The keys on which the content and the one after the first writes differ.
        let mut differing = found.len();
        let mut now = Content::new();
        let mut longest = (differing == 0 && least == 0).then_some(0);
        for (i, write) in self.possible().enumerate() {
            for change in &write.0 {
                let differs = |now: &Content| now.get(&change.key) != found.get(&change.key);
                let before = differs(&now);
                change.apply(&mut now);
                differing = differing + differs(&now) as usize - before as usize;
            }
            if differing == 0 && i + 1 >= least {
                longest = Some(i + 1);
            }
        }
        longest
    }

    /// As [`prefix`](Self::prefix), where some keys could not be read: then any value may have been theirs.
    pub(super) fn prefix_but_for(&self, found: &Content, unreadable: &[Vec<u8>], least: usize) -> Option<usize> {
        let mut now = Content::new();
        let fits = |now: &Content| {
            let readable = |key: &&Vec<u8>| !unreadable.contains(*key);
            now.keys().chain(found.keys()).filter(readable).all(|key| now.get(key) == found.get(key))
        };
        let mut longest = (least == 0 && fits(&now)).then_some(0);
        for (i, write) in self.possible().enumerate() {
            write.apply(&mut now);
            if i + 1 >= least && fits(&now) {
                longest = Some(i + 1);
            }
        }
        longest
    }

    /// The first `len` writes turned out to be what is left: from now on there are no others.
    pub(super) fn keep(&mut self, len: usize) {
        self.writes.extend(self.in_flight.take());
        self.writes.truncate(len);
        self.synced = self.synced.min(len);
        self.content.clear();
        self.writes.iter().for_each(|write| write.apply(&mut self.content));
    }

    /// Says how what was found differs from what each prefix would leave, for the prefixes that come nearest.
    pub(super) fn explain(&self, found: &Content, least: usize) -> String {
        let mut now = Content::new();
        let mut best: Vec<(usize, usize, String)> = Vec::new();
        let mut judge = |now: &Content, len: usize, last: String| {
            let keys: std::collections::BTreeSet<_> = now.keys().chain(found.keys()).collect();
            let wrong = keys.into_iter().filter(|key| now.get(*key) != found.get(*key));
            let wrong: Vec<String> =
                wrong.map(|k| format!("{}: found {}, not {}", show(k), of(found.get(k)), of(now.get(k)))).collect();
            best.push((wrong.len(), len, format!("  after {len} writes, the last {last}: {}", wrong.join("; "))));
        };
        judge(&now, 0, "none".into());
        for (i, write) in self.possible().enumerate() {
            write.apply(&mut now);
            judge(&now, i + 1, write.to_string());
        }
        best.sort();
        let nearest: Vec<String> = best.into_iter().take(4).map(|(_, _, text)| text).collect();
        format!(
            "acknowledged {}, synced {}, at least {least} wanted, in flight: {:?}\n{}",
            self.writes.len(),
            self.synced,
            self.in_flight.as_ref().map(Write::to_string),
            nearest.join("\n")
        )
    }
}

pub(super) fn show(key: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(key))
}

fn of(value: Option<&Arc<[u8]>>) -> String {
    match value {
        None => "nothing".into(),
        Some(v) => format!("{} bytes of write {}", v.len(), super::workload::serial_of(v)),
    }
}

mod tests {
    use super::*;

    fn write(key: &str, value: Option<&str>) -> Write {
        Write::of(key.into(), value.map(|v| v.as_bytes().into()))
    }

    fn content(pairs: &[(&str, &str)]) -> Content {
        pairs.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().into())).collect()
    }

    #[test]
    fn only_prefixes_fit() {
        let mut history = History::default();
        history.acknowledged(write("a", Some("1")));
        history.acknowledged(write("b", Some("2")));
        history.all_synced();
        history.acknowledged(write("a", None));
        history.interrupted(write("c", Some("3")));
        assert_eq!(history.prefix(&content(&[]), 0), Some(0));
        assert_eq!(history.prefix(&content(&[("a", "1")]), 0), Some(1));
        assert_eq!(history.prefix(&content(&[("a", "1")]), 2), None);
        assert_eq!(history.prefix(&content(&[("a", "1"), ("b", "2")]), 2), Some(2));
        assert_eq!(history.prefix(&content(&[("b", "2")]), 2), Some(3));
        assert_eq!(history.prefix(&content(&[("b", "2"), ("c", "3")]), 2), Some(4));
        assert_eq!(history.prefix(&content(&[("a", "1"), ("c", "3")]), 0), None);
        assert_eq!(history.prefix_but_for(&content(&[("c", "3")]), &[b"b".to_vec()], 0), Some(4));
        history.keep(4);
        assert_eq!((history.len(), history.content()), (4, &content(&[("b", "2"), ("c", "3")])));
    }

    #[test]
    fn a_batch_is_there_whole_or_not_at_all() {
        let batch = |keys: &[(&str, Option<&str>)]| {
            Write(keys.iter().flat_map(|(key, value)| write(key, *value).0).collect::<Vec<Change>>())
        };
        let mut history = History::default();
        history.acknowledged(write("a", Some("1")));
        history.acknowledged(batch(&[("a", Some("2")), ("b", Some("2")), ("b", Some("3"))]));
        history.interrupted(batch(&[("a", None), ("c", Some("4"))]));
        assert_eq!(history.prefix(&content(&[("a", "1")]), 0), Some(1));
        assert_eq!(history.prefix(&content(&[("a", "2")]), 0), None);
        assert_eq!(history.prefix(&content(&[("a", "2"), ("b", "2")]), 0), None);
        assert_eq!(history.prefix(&content(&[("a", "2"), ("b", "3")]), 0), Some(2));
        assert_eq!(history.prefix(&content(&[("b", "3"), ("c", "4")]), 0), Some(3));
        assert_eq!(history.prefix(&content(&[("b", "3")]), 0), None);
        assert_eq!(history.prefix(&content(&[("a", "2"), ("b", "3"), ("c", "4")]), 0), None);
    }
}

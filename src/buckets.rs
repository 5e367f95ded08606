//! Sorting by what is spread evenly, as keyed hashes are: distributed to as many buckets by their top bits as there are items,
//! few are left to be compared in each.

use crate::prefetch::prefetch;

/// Fewer items than this many bits can count are sorted without buckets; and more buckets than that would only miss the
/// caches.
const LEAST_BITS: u32 = 6;
const MOST_BITS: u32 = 16;

/// Of so many items one pass over memory brings those of each part together first: then the part fits into a cache close by,
/// and so does the copy that is made of it.
const LARGE: usize = 2048;
const PART_BITS: u32 = 8;

/// Sorts by `order`, in which the hash comes first. For mere numbers of items, which take little to copy, [`Buckets`] alone do.
pub(crate) fn sort<T: Copy, K: Ord>(items: &mut [T], hash: impl Fn(&T) -> u64 + Copy, order: impl Fn(&T) -> K + Copy) {
    let mut buckets = Buckets::new();
    if items.len() < LARGE {
        return buckets.sort(items, 0, hash, order);
    }
    let ends = distribute(items, |item| (hash(item) >> (u64::BITS - PART_BITS)) as usize);
    let mut start = 0;
    for end in ends {
        buckets.sort(&mut items[start..end], PART_BITS, hash, order);
        start = end;
    }
}

/// Brings the items of each part together, in the order of the parts, and returns where each part ends (McIlroy, Bostic and
/// McIlroy, "Engineering radix sort", 1993).
fn distribute<T: Copy>(items: &mut [T], part_of: impl Fn(&T) -> usize) -> [usize; 1 << PART_BITS] {
    let mut next = [0; 1 << PART_BITS];
    items.iter().for_each(|item| next[part_of(item)] += 1);
    let mut end = 0;
    let ends = next.map(|count| {
        end += count;
        end
    });
    for (place, end) in next.iter_mut().zip(ends) {
        *place = end - *place;
    }
    for part in 0..ends.len() {
        while next[part] < ends[part] {
            // Each item that is put where it belongs makes way for another, until one belongs here.
            let mut item = items[next[part]];
            let mut to = part_of(&item);
            while to != part {
                std::mem::swap(&mut item, &mut items[next[to]]);
                next[to] += 1;
                // By the time the next item comes to this place it is at hand.
                prefetch(items.as_ptr().wrapping_add(next[to] + 1));
                to = part_of(&item);
            }
            items[next[part]] = item;
            next[part] += 1;
        }
    }
    ends
}

/// Memory to sort in, which may serve many times.
pub(crate) struct Buckets<T> {
    ends: Vec<u32>,
    copy: Vec<T>,
}

impl<T: Copy> Buckets<T> {
    pub(crate) fn new() -> Buckets<T> {
        Buckets { ends: Vec::new(), copy: Vec::new() }
    }

    /// Sorts by `order`, in which the hash comes first. All hashes are expected to have their first `common` bits in
    /// common. Without the memory for buckets the items are all compared.
    pub(crate) fn sort<K: Ord>(
        &mut self,
        items: &mut [T],
        common: u32,
        hash: impl Fn(&T) -> u64,
        order: impl Fn(&T) -> K,
    ) {
        let bits = items.len().checked_ilog2().unwrap_or(0).min(MOST_BITS);
        let Buckets { ends, copy } = self;
        ends.clear();
        copy.clear();
        let no_memory = ends.try_reserve_exact(1 << bits).is_err() || copy.try_reserve_exact(items.len()).is_err();
        if bits < LEAST_BITS || no_memory || u32::try_from(items.len()).is_err() {
            return items.sort_unstable_by_key(order);
        }
        ends.resize(1 << bits, 0);
        copy.extend_from_slice(items);
        let bucket_of = |item: &T| (hash(item) << common >> (64 - bits)) as usize;
        copy.iter().for_each(|item| ends[bucket_of(item)] += 1);
        let mut end = 0;
        for count in &mut *ends {
            end += *count;
            *count = end - *count;
        }
        for item in &*copy {
            // What is the start of the bucket at first is its end when all its items are in place.
            let place = &mut ends[bucket_of(item)];
            items[*place as usize] = *item;
            *place += 1;
        }
        let mut start = 0;
        for &end in &*ends {
            let end = end as usize;
            if end > start + 1 {
                items[start..end].sort_unstable_by_key(&order);
            }
            start = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_items_are_sorted() {
        let mut buckets = Buckets::new();
        for (count, common, spread) in
            [(0, 0, 1), (1, 0, 1), (100, 0, 1 << 20), (5000, 12, 1), (70_000, 8, 1), (500, 8, 1 << 50), (5000, 0, 1)]
        {
            let random =
                |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let items: Vec<(u64, u64)> = (0..count).map(|i| ((random(i) >> common) / spread, random(i + 1))).collect();
            let mut expected = items.clone();
            expected.sort_unstable();
            let mut sorted = items.clone();
            buckets.sort(&mut sorted, common, |item| item.0, |item| *item);
            assert_eq!(sorted, expected, "{count} items");
            let mut sorted = items;
            sort(&mut sorted, |item| item.0, |item| *item);
            assert_eq!(sorted, expected, "{count} items, in place");
        }
    }
}

//! Work on several cores whose results come back in order.

/// One worker's state for each core this process may use, at most 16.
pub(crate) fn workers<S>(mut make: impl FnMut() -> S) -> Vec<S> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    (0..cores).map(|_| make()).collect()
}

/// `f` over `items`, one scoped thread for each of `states`; results stand where their items stood. Which state an item
/// meets is no part of the contract, so `f` must give the same result with any.
pub(crate) fn map<S: Send, T: Send, R: Send>(
    states: &mut [S],
    items: Vec<T>,
    f: impl Fn(&mut S, T) -> R + Sync,
) -> Vec<R> {
    let lanes = states.len().min(items.len());
    if lanes <= 1 {
        let Some(state) = states.first_mut() else {
            return Vec::new();
        };
        return items.into_iter().map(|item| f(state, item)).collect();
    }
    // Dealt like cards: neighbours cost alike more often than not.
    let mut hands: Vec<Vec<(usize, T)>> = (0..lanes).map(|_| Vec::with_capacity(items.len() / lanes + 1)).collect();
    for (at, item) in items.into_iter().enumerate() {
        hands[at % lanes].push((at, item));
    }
    let f = &f;
    let mut results: Vec<(usize, R)> = std::thread::scope(|scope| {
        let running: Vec<_> = states
            .iter_mut()
            .zip(hands)
            .map(|(state, hand)| {
                scope.spawn(move || hand.into_iter().map(|(at, item)| (at, f(state, item))).collect::<Vec<_>>())
            })
            .collect();
        running
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    results.sort_unstable_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_of_the_items() {
        for lanes in [1usize, 2, 3, 7] {
            for items in [0usize, 1, 2, 10, 101] {
                let mut states = vec![(); lanes];
                let out = map(&mut states, (0..items).collect(), |(), i| i * 2);
                assert_eq!(out, (0..items).map(|i| i * 2).collect::<Vec<_>>());
            }
        }
    }
}

//! Labels that would overlap are moved apart, as little as possible. Positions only; nothing is drawn here.

/// Moves the wanted centres so that neighbours are at least `gap` apart and all lie in `low..=high` where there is room.
///
/// Clusters of touching labels are centred on the mean of what their members wanted (pool adjacent violators), which
/// minimises the sum of squared moves.
pub(crate) fn spread(wanted: &[f64], gap: f64, low: f64, high: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    // Subtracting rank * gap turns "at least gap apart" into "not falling": each cluster is then one level.
    let mut clusters: Vec<(f64, usize)> = Vec::new();
    for (rank, index) in order.iter().enumerate() {
        clusters.push((wanted[*index] - rank as f64 * gap, 1));
        while let [.., (before, many), (level, few)] = clusters[..] {
            if before <= level {
                break;
            }
            let mean = (before * many as f64 + level * few as f64) / (many + few) as f64;
            clusters.truncate(clusters.len() - 2);
            clusters.push((mean, many + few));
        }
    }
    let room = high - (wanted.len().saturating_sub(1)) as f64 * gap;
    let levels = clusters.iter().flat_map(|(level, count)| std::iter::repeat_n(*level, *count));
    let mut placed = vec![0.0; wanted.len()];
    for ((rank, index), level) in order.iter().enumerate().zip(levels) {
        placed[*index] = level.min(room).max(low) + rank as f64 * gap;
    }
    placed
}

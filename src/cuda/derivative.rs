//! Composites and their derivatives along directions, over planes.

use ndarray::{ArrayView2, ArrayView3, ArrayView4, Axis, s};

use super::call::Call;
use super::context::Stream;
use super::evidence::Known;
use super::layout::kernel_args;
use super::memory::Memory;
use super::module::Grid;
use super::planes::{Factor, Planes, Slice, bytes_of_sums};
use super::queue::LaunchQueue;
use crate::error::Result;
use crate::found::{MirrorSums, QueryDerivative};

/// Bytes of device memory per query, besides planes.
pub(super) fn bytes_per_query(call: &Call<'_>, directions: usize) -> usize {
    let (shards, windows, len) = (call.bank.shards(), call.components.count, call.bank.image_len());
    let of_direction = 8 * (windows * (shards + 1) + len) + bytes_of_sums(call);
    call.mirrors() * (bytes_of_sums(call) + 8 * len + directions * of_direction)
}

/// Passes over all images.
pub(super) fn passes(directions: usize) -> usize {
    if directions == 0 { 1 } else { 2 }
}

/// The composites of the queries of a batch, and the derivatives along `directions` `[direction, query of the call, channel,
/// pixel]`.
pub(super) fn run(
    known: &Known<'_>,
    queue: &mut LaunchQueue<'_, '_>,
    directions: ArrayView4<'_, f64>,
) -> Result<Vec<QueryDerivative>> {
    let stream = &queue.stream.clone();
    let planes = Planes::new(known.call, stream, known.batch, !directions.is_empty())?;
    let along = Direction::all(known, &planes, stream, directions)?;
    let composite = planes.new_sums(stream)?;
    planes.for_each_slice(queue, |queue, slice| {
        planes.weights(queue, slice, &known.normaliser)?;
        planes.composite(queue, slice, &planes.windows, Factor::Pixel, &composite)?;
        along.iter().try_for_each(|direction| direction.add_means(&planes, queue, slice))
    })?;
    if !along.is_empty() {
        along.iter().try_for_each(|direction| direction.merge_means(known, &planes, queue))?;
        planes.for_each_slice(queue, |queue, slice| {
            planes.weights(queue, slice, &known.normaliser)?;
            along.iter().try_for_each(|direction| direction.add_tilted(&planes, queue, slice))
        })?;
    }
    read(known, &planes, queue, &composite, &along)
}

/// The mean products of the queries of a batch, `[query][direction][window]`, of images less z.
pub(super) fn mean_products(
    known: &Known<'_>,
    queue: &mut LaunchQueue<'_, '_>,
    directions: ArrayView4<'_, f64>,
) -> Result<Vec<Vec<Vec<f64>>>> {
    let stream = &queue.stream.clone();
    let planes = Planes::new(known.call, stream, known.batch, true)?;
    let along = Direction::all(known, &planes, stream, directions)?;
    planes.for_each_slice(queue, |queue, slice| {
        planes.weights(queue, slice, &known.normaliser)?;
        along.iter().try_for_each(|direction| direction.add_means(&planes, queue, slice))
    })?;
    along.iter().try_for_each(|direction| direction.merge_means(known, &planes, queue))?;
    queue.wait()?;
    let windows = known.call.components.count;
    let mut found = vec![Vec::with_capacity(along.len()); known.batch.queries];
    for direction in &along {
        let mut means = vec![0.0; known.batch.probe_count * windows];
        direction.means.read(&mut means, "mean products")?;
        found.iter_mut().zip(means.chunks_exact(windows)).for_each(|(found, means)| found.push(means.to_vec()));
    }
    Ok(found)
}

/// Composites and derivatives of the queries of a batch as in [`run`], given the mean products `[direction, query of the call,
/// window]`.
pub(super) fn given_means(
    known: &Known<'_>,
    queue: &mut LaunchQueue<'_, '_>,
    directions: ArrayView4<'_, f64>,
    means: ArrayView3<'_, f64>,
) -> Result<Vec<QueryDerivative>> {
    let stream = &queue.stream.clone();
    let planes = Planes::new(known.call, stream, known.batch, !directions.is_empty())?;
    let mut along = Direction::all(known, &planes, stream, directions)?;
    for (direction, means) in along.iter_mut().zip(means.outer_iter()) {
        direction.means = Memory::copy_of(stream, &means_of_probes(known, means), "mean products")?;
    }
    let composite = planes.new_sums(stream)?;
    planes.for_each_slice(queue, |queue, slice| {
        planes.weights(queue, slice, &known.normaliser)?;
        planes.composite(queue, slice, &planes.windows, Factor::Pixel, &composite)?;
        along.iter().try_for_each(|direction| direction.add_tilted(&planes, queue, slice))
    })?;
    read(known, &planes, queue, &composite, &along)
}

/// Means `[query of the call, window]` as the probes of a batch see them, `[probe][window]`.
fn means_of_probes(known: &Known<'_>, means: ArrayView2<'_, f64>) -> Vec<f64> {
    let windows = 0..known.call.components.count;
    let rows = || known.rows.iter().map(|&row| means.row(row));
    let mut of_probes: Vec<f64> = rows().flat_map(|means| means.to_vec()).collect();
    if known.call.flips {
        for means in rows() {
            of_probes.extend(windows.clone().map(|k| means[known.components.mirror_index(k)]));
        }
    }
    of_probes
}

/// What was summed on the device.
fn read(
    known: &Known<'_>,
    planes: &Planes<'_>,
    queue: &mut LaunchQueue<'_, '_>,
    composite: &Memory,
    along: &[Direction],
) -> Result<Vec<QueryDerivative>> {
    let composites = composites_of(known, &planes.totals(queue, composite)?);
    let mut found: Vec<QueryDerivative> =
        composites.into_iter().map(|composite| QueryDerivative { composite, directions: Vec::new() }).collect();
    for direction in along {
        let sums = known.pair_up(&planes.totals(queue, &direction.sums)?);
        found.iter_mut().zip(sums).for_each(|(found, sums)| found.directions.push(sums));
    }
    Ok(found)
}

/// A direction of the queries of a batch and, mirrored, of their mirror images, `[probe][channel][pixel]`.
fn values_of(known: &Known<'_>, directions: ArrayView4<'_, f64>, direction: usize) -> Vec<f64> {
    let of_query = |&row: &usize| directions.slice(s![direction, row, .., ..]);
    let mut values: Vec<f64> =
        known.rows.iter().flat_map(|row| of_query(row).iter().copied().collect::<Vec<_>>()).collect();
    if known.call.flips {
        let rows = values.chunks_exact(known.call.bank.width());
        let flipped: Vec<f64> = rows.flat_map(|row| row.iter().rev().copied()).collect();
        values.extend(flipped);
    }
    values
}

/// The sums of composites about the centre that the host counts from.
fn composites_of(known: &Known<'_>, totals: &[f64]) -> Vec<MirrorSums> {
    let (shift, width) = (known.call.bank.shift_of_centre(), known.call.bank.width());
    let mut sums = known.pair_up(totals);
    for ([sums, _], evidence) in sums.iter_mut().zip(&known.evidence) {
        let shares = evidence.shares_at_pixels(known.components);
        sums.indexed_iter_mut().for_each(|((_, y, x), sum)| *sum += shift * shares[y * width + x]);
    }
    sums
}

/// A direction on the device, and what is summed along it.
struct Direction {
    /// `[probe][channel][pixel]`.
    values: Memory,
    /// Weighted sums of products, `[probe][shard][window]`.
    shard_means: Memory,
    /// Mean products, `[probe][window]`.
    means: Memory,
    /// Sums of pixels under tilted weights, `[probe][shard][channel][pixel]`.
    sums: Memory,
}

impl Direction {
    /// All directions `[direction, query of the call, channel, pixel]`.
    fn all(
        known: &Known<'_>,
        planes: &Planes<'_>,
        stream: &Stream,
        directions: ArrayView4<'_, f64>,
    ) -> Result<Vec<Self>> {
        (0..directions.len_of(Axis(0)))
            .map(|direction| Self::new(known, planes, stream, &values_of(known, directions, direction)))
            .collect()
    }

    fn new(known: &Known<'_>, planes: &Planes<'_>, stream: &Stream, values: &[f64]) -> Result<Self> {
        let windows = known.batch.probe_count * known.call.components.count;
        Ok(Self {
            values: Memory::copy_of(stream, values, "a direction")?,
            shard_means: Memory::new(stream, windows * known.call.bank.shards() * 8, "mean products")?,
            means: Memory::new(stream, windows * 8, "mean products")?,
            sums: planes.new_sums(stream)?,
        })
    }

    /// Adds the products of a slice, whose weights are known.
    fn add_means(&self, planes: &Planes<'_>, queue: &mut LaunchQueue<'_, '_>, slice: &Slice) -> Result<()> {
        planes.products(queue, slice, &self.values)?;
        planes.add_means(queue, slice, &self.shard_means)
    }

    /// Adds the pixels of a slice, whose weights are known, under tilted weights.
    fn add_tilted(&self, planes: &Planes<'_>, queue: &mut LaunchQueue<'_, '_>, slice: &Slice) -> Result<()> {
        planes.products(queue, slice, &self.values)?;
        planes.tilt(queue, slice, &self.means)?;
        let Some(tilted) = &planes.products else { return Ok(()) };
        planes.composite(queue, slice, tilted, Factor::AboveZ, &self.sums)
    }

    /// Merges the weighted sums of products of all shards and mirror images.
    fn merge_means(&self, known: &Known<'_>, planes: &Planes<'_>, queue: &mut LaunchQueue<'_, '_>) -> Result<()> {
        let Known { call, batch, .. } = *known;
        let windows = call.components.count;
        let (count, mirror_columns) = (windows as i32, call.components.mirror_columns as i32);
        let (sums, shards, means) =
            (self.shard_means.address_ref(), call.bank.shards() as i32, self.means.address_ref());
        let args: &[_] = kernel_args![&batch.probes, sums, &shards, &count, &mirror_columns, means];
        let grid = Grid { blocks: [Grid::over(windows).blocks[0], batch.queries as u32, 1], ..Grid::over(windows) };
        // SAFETY: there is a sum for every probe, shard and window, and a mean for every probe and window.
        unsafe { queue.launch(&planes.kernel("merge_means")?, grid, args) }
    }
}

// Sums of a step on their way to the host.

// Keeps the words of the step under way as report number *slot and starts the next one at zero.
// grid (ceil(words / 256)), block 256, no shared
extern "C" __global__ void __launch_bounds__(256) report_keep(u64 *current, u64 *reports, const u32 *slot, int words) {
    int i = blockIdx.x * 256 + threadIdx.x;
    if (i < words) {
        reports[static_cast<size_t>(*slot) * words + i] = current[i];
        current[i] = 0;
    }
}
EXPORT(report_keep)

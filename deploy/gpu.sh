#!/usr/bin/env bash
# What a GPU shows of isoloss, in three parts: gpu.sh check | table | sweep
#
#   check   the cuda engine held to the CPU engine: gradients, 300 losses, same bits twice, resumed runs, checkpoints
#   table   tokens a second and shares of the peak, beside a PyTorch script where there is one
#   sweep   the 32 runs of sweeps/gpu.toml on a text, their law and report; last, what they were predicted to take and took
#
# It builds nothing. Every part ends within 9 minutes; table and sweep, started again, go on where they stopped. Results lie in $RESULTS, which
# must outlive the calls; `check` begins anew each time and keeps what it has found so far in check.txt there.
# Strip the binary before it is carried, 31 MB instead of 203: strip -o isoloss target/release/isoloss
#
#   ISOLOSS  the binary                                     [./isoloss]
#   RIVAL    torch_gpt.py, a PyTorch trainer of the same shapes; without it the table has one side  [./torch_gpt.py]
#   TEXT     the text of the sweep                          [./text.txt]
#   SWEEP    the sweep file                                 [./gpu.toml]
#   RESULTS  the folder that results are kept in            [./gpu-out]
#   RETRY    1: what failed before is tried again           [0]
set -euo pipefail
ISOLOSS=${ISOLOSS:-./isoloss} RIVAL=${RIVAL:-./torch_gpt.py} TEXT=${TEXT:-./text.txt} SWEEP=${SWEEP:-./gpu.toml} OUT=${RESULTS:-./gpu-out}
END=$((SECONDS + 510))
export ISOLOSS_DATA_DIR=$OUT/data
mkdir -p "$OUT"

# CUDA's libraries as PyTorch brings them, where no toolkit is.
packages=$(python3 -c 'import nvidia; print(list(nvidia.__path__)[0])' 2>/dev/null || true)
for folder in ${packages:+"$packages"/*/lib}; do
    if [ -d "$folder" ]; then LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}; fi
done
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}

left() { echo $((END - SECONDS)); }

# keep FILE COMMAND...: the command's output, once; a command that fails leaves its words in FILE.failed.
keep() {
    local file=$1 status=0
    shift
    if [ -s "$file" ] || [ -s "$file.failed" ]; then return; fi
    if [ "$(left)" -lt 20 ]; then
        LATER=$((LATER + 1))
        return
    fi
    timeout "$(left)" "$@" >"$file.partial" 2>"$file.log" || status=$?
    if [ $status = 0 ]; then
        mv "$file.partial" "$file"
    elif [ $status = 124 ]; then
        LATER=$((LATER + 1))
    else
        { echo "exit $status"; tail -3 "$file.log"; } >"$file.failed"
    fi
}

# bench SHAPE [N] [WORDS...]: one model of the shape, or N in one process.
bench() {
    local shape=$1 count=${2:-1}
    shift $(($# < 2 ? $# : 2))
    "$ISOLOSS" bench --engine cuda --precision bf16 --shape "$shape" --together "$count" --seconds 4 --json "$@"
}

# together N SHAPE NAME BATCH: so many processes at once on one GPU, for shapes that leave most of it idle, measured while
# all of them train. All of them or none counts.
together() {
    local run runs=() lost=0 meeting
    meeting=$(mktemp -d)
    for run in $(seq "$1"); do
        bench "$2" 1 --batch "$4" --meet "$1:$meeting" >"$OUT/$3.run$run" &
        runs+=($!)
    done
    for run in "${runs[@]}"; do wait "$run" || lost=$((lost + 1)); done
    rm -rf "$meeting"
    if [ "$lost" -gt 0 ]; then
        echo "$lost of $1 at once failed" >&2
        return 1
    fi
    for run in $(seq "$1"); do cat "$OUT/$3.run$run"; done
}

# Without a daemon in its folder CUDA does without MPS, whatever daemon the machine has.
GIVEN=${CUDA_MPS_PIPE_DIRECTORY:-/tmp/nvidia-mps} NOWHERE=$(cd "$OUT" && pwd)/none MPS='' MPS_HOME=''

# mps_ask FOLDER COMMAND: a command to the MPS daemon there.
mps_ask() { echo "$2" | CUDA_MPS_PIPE_DIRECTORY=$1 timeout 5 nvidia-cuda-mps-control >/dev/null 2>&1; }

# Sets MPS to the folder of the machine's daemon, or of one that this script starts and ends; fails where there is none.
mps_up() {
    if [ -n "$MPS" ]; then return; fi
    if ! command -v nvidia-cuda-mps-control >/dev/null; then
        echo "no nvidia-cuda-mps-control: nothing is measured with MPS" >&2
        return 1
    fi
    if mps_ask "$GIVEN" get_server_list; then
        MPS=$GIVEN
    else
        MPS_HOME=$(mktemp -d)
        mkdir "$MPS_HOME/pipe" "$MPS_HOME/log"
        if ! CUDA_MPS_PIPE_DIRECTORY=$MPS_HOME/pipe CUDA_MPS_LOG_DIRECTORY=$MPS_HOME/log timeout 20 nvidia-cuda-mps-control -d >&2; then
            echo "nvidia-cuda-mps-control does not start: nothing is measured with MPS" >&2
            return 1
        fi
        MPS=$MPS_HOME/pipe
    fi
    if ! CUDA_MPS_PIPE_DIRECTORY=$MPS timeout 20 "$ISOLOSS" gpu-open >"$OUT/mps.open"; then
        echo "the GPU does not open through MPS: nothing is measured with it" >&2
        mps_down
        return 1
    fi
}

mps_down() {
    if [ -n "$MPS_HOME" ]; then
        mps_ask "$MPS_HOME/pipe" quit || true
        rm -rf "$MPS_HOME"
    fi
    MPS='' MPS_HOME=''
}

# Shapes that leave most of a GPU idle, and how many of each are tried at once.
PACKED="4:1M 4:5M 4:10M 8:1M"

# inside: several models at once in one process.
inside() {
    local shape runs
    for runs in $PACKED; do
        shape=${runs#*:} runs=${runs%:*}
        keep "$OUT/inside-$runs-$shape.json" bash -c 'bench "$@"' bench "$shape" "$runs"
    done
}

# packed HOW: several processes at once, whichever way they share the GPU now, each with the batch that was best inside.
packed() {
    local shape runs batch
    for runs in $PACKED; do
        shape=${runs#*:} runs=${runs%:*}
        batch=$(field batch "$OUT/inside-$runs-$shape.json")
        keep "$OUT/$1-$runs-$shape.json" bash -c 'together "$@"' together "$runs" "$shape" "$1-$runs-$shape" "${batch:-64}"
    done
}

SHAPES="1M 5M 10M 50M 160M 350M moe-50M"

# rival MODE first|second: every shape in this mode of torch.compile, with the first or second of the batches that suit it.
rival() {
    local shape batches moe
    for shape in $SHAPES; do
        case $shape in
        160M | 350M) batches=(64 128) ;;
        *) batches=(256 64) ;;
        esac
        if [ "$2" = second ]; then batches=("${batches[1]}"); fi
        moe=()
        if [ "$shape" = moe-50M ]; then moe=(--moe grouped); fi
        keep "$OUT/rival-$shape-$1-${batches[0]}.txt" python3 "$RIVAL" --device cuda --cfg "${shape#moe-}" "${moe[@]}" \
            --compile 1 --amp 1 --sync 10 --secs 4 --mode "$1" --B "${batches[0]}"
    done
}

table() {
    local shape
    export -f bench together
    export ISOLOSS OUT CUDA_MPS_PIPE_DIRECTORY=$NOWHERE
    if [ "${RETRY:-0}" = 1 ]; then rm -f "$OUT"/*.failed; fi
    for shape in $SHAPES; do keep "$OUT/ours-$shape.json" bash -c 'bench "$@"' bench "$shape"; done
    if [ -f "$RIVAL" ]; then rival reduce-overhead first; fi
    inside
    packed turns
    if [ "$(left)" -lt 60 ]; then
        LATER=$((LATER + 1))
    elif mps_up; then
        export CUDA_MPS_PIPE_DIRECTORY=$MPS
        packed mps
        export CUDA_MPS_PIPE_DIRECTORY=$NOWHERE
        mps_down
    fi
    if [ -f "$RIVAL" ]; then
        rival default first
        rival reduce-overhead second
        rival default second
    fi
    told
}

# told: the table of what is measured so far, and what is not.
told() {
    local shape
    echo "tokens a second: one model; four and eight at once in one process, in processes that take turns, in processes"
    echo "through MPS; the rival's best; times: our best over it"
    printf '%-8s %9s %7s' shape alone of-peak
    printf ' %9s' 4-inside 4-turns 4-mps 8-inside 8-turns 8-mps rival
    printf ' %6s\n' times
    for shape in $SHAPES; do row "$shape"; done
    if compgen -G "$OUT/*.failed" >/dev/null; then
        echo "failed, with their last words in $OUT (RETRY=1 tries them again):" "$(cd "$OUT" && echo *.failed)"
    fi
    if [ "$LATER" -gt 0 ]; then echo "$LATER measurements are left: run it again"; fi
}

# field NAME FILE...: the sum of a number over the files' JSON.
field() {
    local name=$1
    shift
    { cat "$@" 2>/dev/null || true; } | { grep -o "\"$name\": *[0-9.eE+-]*" || true; } | awk -F': *' '{ sum += $2 } END { if (NR) printf "%.6g", sum }'
}

row() {
    local rival rates=() file
    for file in ours inside-4 turns-4 mps-4 inside-8 turns-8 mps-8; do rates+=("$(field tokens_per_second "$OUT/$file-$1.json")"); done
    rival=$({ cat "$OUT/rival-$1-"*.txt 2>/dev/null || true; } | grep -o 'med_tok/s=[0-9]*' | cut -d= -f2 | sort -n | tail -1 || true)
    awk -v name="$1" -v rates="$(printf '%s ' "${rates[@]/#/0}")" \
        -v share="$(field peak_share "$OUT/ours-$1.json")" -v rival="$rival" 'BEGIN {
        count = split(rates, rate, " ")
        printf "%-8s %9s %7s", name, told(rate[1]), (share > 0) ? sprintf("%.1f%%", 100 * share) : "-"
        for (i = 1; i <= count; i++) {
            if (rate[i] + 0 > best) best = rate[i] + 0
            if (i > 1) printf " %9s", told(rate[i])
        }
        printf " %9s %6s\n", told(rival), (rival > 0 && best > 0) ? sprintf("%.2f", best / rival) : "-"
    }
    function told(rate) { return (rate > 0) ? sprintf("%.0f", rate) : "-" }'
}

trap mps_down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
LATER=0
case "${1:-}" in
check)
    timeout "$(left)" "$ISOLOSS" doctor || true
    # Each check is told on stderr when it is done; the table comes last.
    { timeout "$(left)" "$ISOLOSS" gpu-check 2>&1 >&3 3>&- | tee "$OUT/check.txt" >&2 3>&-; } 3>&1
    ;;
table)
    "$ISOLOSS" doctor | grep -E ' (gpu|cuda|mps) ' || true
    table
    ;;
sweep)
    if [ ! -f "$TEXT" ]; then
        echo "no text at $TEXT: name one in TEXT" >&2
        exit 2
    fi
    status=0
    # What it says on stderr is seen, and kept for its last line.
    { timeout -s INT -k 15 "$(left)" "$ISOLOSS" up "$SWEEP" --set "corpus.paths=[\"$TEXT\"]" --out "$OUT/report" 2>&1 >&3 3>&- |
        tee "$OUT/sweep.log" >&2 3>&-; } 3>&1 || status=$?
    if [ $status = 124 ]; then echo "not all runs are done: run it again" >&2; fi
    # Said only of a sweep that was trained in one go.
    grep '^the runs were predicted' "$OUT/sweep.log" || true
    exit $status
    ;;
*)
    sed -n '2,17s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac

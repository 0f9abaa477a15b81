#!/usr/bin/env bash
# What a GPU shows of isoloss, in three parts: gpu.sh check | table | sweep
#
#   check   the cuda engine held to the CPU engine: gradients, 300 losses, same bits twice, resumed runs, checkpoints
#   table   tokens a second and shares of the peak, beside a PyTorch script where there is one
#   sweep   the 32 runs of sweeps/gpu.toml on a text, their law and report; last, what they were predicted to take and took
#
# It builds nothing. Every part ends within 9 minutes and, started again, goes on where it stopped. Results lie in $RESULTS,
# which must outlive the calls and holds those of one GPU and one binary.
# Strip the binary before it is carried, 31 MB instead of 203: strip -o isoloss target/release/isoloss
#
#   ISOLOSS  the binary                                     [./isoloss]
#   RIVAL    torch_gpt.py, a PyTorch trainer of the same shapes; empty: the table has one side  [./torch_gpt.py]
#   TEXT     the text of the sweep                          [./text.txt]
#   SWEEP    the sweep file                                 [./gpu.toml]
#   RESULTS  the folder that results are kept in            [./gpu-out]
#   RETRY    1: what failed before is tried again           [0]
set -euo pipefail
ISOLOSS=${ISOLOSS:-./isoloss} RIVAL=${RIVAL-./torch_gpt.py} TEXT=${TEXT:-./text.txt} SWEEP=${SWEEP:-./gpu.toml} OUT=${RESULTS:-./gpu-out}
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

fail() {
    echo "gpu.sh: $1" >&2
    exit 2
}

# run COMMAND...: in a process group of its own and no longer than is left. A signal to this script ends all of it at once,
# which bash would not see before a command in its foreground had ended.
CHILD=''
run() {
    local status=0
    setsid timeout -k 15 "$(left)" "$@" &
    CHILD=$!
    while kill -0 "$CHILD" 2>/dev/null; do
        status=0
        wait "$CHILD" || status=$?
    done
    CHILD=''
    return $status
}

# ended CODE: what is under way is asked to end, and killed if that does not help.
ended() {
    trap '' INT TERM
    if [ -n "$CHILD" ]; then
        kill -TERM -- "-$CHILD" 2>/dev/null || true
        for _ in $(seq 100); do
            kill -0 -- "-$CHILD" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL -- "-$CHILD" 2>/dev/null || true
    fi
    exit "$1"
}

# keep FILE COMMAND...: the command's output, once; a command that fails leaves its words in FILE.failed.
keep() {
    local file=$1 status=0
    shift
    if [ -s "$file" ] || [ -s "$file.failed" ]; then return; fi
    if [ "$(left)" -lt 20 ]; then
        LATER=$((LATER + 1))
        return
    fi
    run "$@" >"$file.partial" 2>"$file.log" || status=$?
    if [ $status = 0 ]; then
        mv "$file.partial" "$file"
    elif [ "$(left)" -lt 1 ]; then
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

# rival SHAPE MODE BATCH: PyTorch's speed in this mode of torch.compile; of experts with each of its fast products.
rival() {
    local experts of=()
    if [ "${1#moe-}" != "$1" ]; then of=(grouped bmm); fi
    for experts in "${of[@]:-}"; do
        keep "$OUT/rival-$1-$2-$3${experts:+-$experts}.txt" python3 "$RIVAL" --device cuda --cfg "${1#moe-}" \
            ${experts:+--moe "$experts"} --compile 1 --amp 1 --sync 10 --secs 4 --mode "$2" --B "$3"
    done
}

# rival_rate SHAPE WORDS: the best of its runs whose names have these words.
rival_rate() {
    { cat "$OUT/rival-$1-$2"*.txt 2>/dev/null || true; } | { grep -o 'med_tok/s=[0-9]*' || true; } | cut -d= -f2 | sort -n | tail -1
}

# rivals first: every shape in both modes with the batch that is most likely good; rivals rest: in the better mode with others,
# among them what was best for us.
rivals() {
    local shape mode batch first
    if [ -z "$RIVAL" ]; then return; fi
    for shape in $SHAPES; do
        case $shape in 160M | 350M) first=64 ;; *) first=256 ;; esac
        if [ "$1" = first ]; then
            for mode in reduce-overhead default; do rival "$shape" "$mode" "$first"; done
            continue
        fi
        mode=reduce-overhead
        if [ "0$(rival_rate "$shape" default)" -gt "0$(rival_rate "$shape" reduce-overhead)" ]; then mode=default; fi
        for batch in $(field batch "$OUT/ours-$shape.json") 512 128 64 32 16; do rival "$shape" "$mode" "$batch"; done
    done
}

table() {
    local shape
    export -f bench together
    export ISOLOSS OUT CUDA_MPS_PIPE_DIRECTORY=$NOWHERE
    if [ "${RETRY:-0}" = 1 ]; then rm -f "$OUT"/*.failed; fi
    for shape in $SHAPES; do keep "$OUT/ours-$shape.json" bash -c 'bench "$@"' bench "$shape"; done
    # What is decided by several runs at once comes before the rival, whose compilations take the most time.
    inside
    packed turns
    if [ "$(left)" -lt 60 ]; then
        LATER=$((LATER + $(echo "$PACKED" | wc -w)))
    elif mps_up; then
        export CUDA_MPS_PIPE_DIRECTORY=$MPS
        packed mps
        export CUDA_MPS_PIPE_DIRECTORY=$NOWHERE
        mps_down
    fi
    rivals first
    rivals rest
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
    if [ "$LATER" -gt 0 ] || compgen -G "$OUT/*.failed" >/dev/null; then return 1; fi
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
    rival=$(rival_rate "$1" '')
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

# Before anything is kept: a GPU that opens, and results of no other GPU or binary.
begin() {
    local found of
    found=$("$ISOLOSS" gpu-open 2>&1) || fail "the GPU does not open with ISOLOSS=$ISOLOSS: ${found##*$'\n'}"
    of=$(cksum <"$ISOLOSS" && echo "$found" | grep -o '"name": *"[^"]*"' | head -1)
    if [ -f "$OUT/of.txt" ] && [ "$(cat "$OUT/of.txt")" != "$of" ]; then
        fail "$OUT holds results of another GPU or binary: name another folder in RESULTS"
    fi
    echo "$of" >"$OUT/of.txt"
}

trap mps_down EXIT
trap 'ended 130' INT
trap 'ended 143' TERM
LATER=0
case "${1:-}" in
check)
    begin
    run "$ISOLOSS" doctor || true
    again=()
    if [ "${RETRY:-0}" = 1 ] && [ -f "$OUT/checks" ]; then again=(--retry); fi
    while :; do
        status=0
        run "$ISOLOSS" gpu-check --keep "$OUT/checks" --seconds "$(($(left) - 60))" "${again[@]}" \
            2> >(tee "$OUT/check.log" >&2) || status=$?
        sleep 0.5
        # A context that broke ends its process: the next one goes on with the checks behind it.
        if [ "$(left)" -lt 90 ] || ! grep -q "context broke" "$OUT/check.log"; then exit $status; fi
        again=()
    done
    ;;
table)
    if [ -n "$RIVAL" ] && [ ! -f "$RIVAL" ]; then fail "no rival at RIVAL=$RIVAL; RIVAL= measures without one"; fi
    begin
    "$ISOLOSS" doctor | grep -E ' (gpu|cuda|mps) ' || true
    table
    ;;
sweep)
    if [ ! -f "$TEXT" ]; then fail "no text at TEXT=$TEXT"; fi
    if [ ! -f "$SWEEP" ]; then fail "no sweep file at SWEEP=$SWEEP"; fi
    begin
    status=0
    run "$ISOLOSS" up "$SWEEP" --set "corpus.paths=[\"$TEXT\"]" --out "$OUT/report" 2> >(tee "$OUT/sweep.log" >&2) || status=$?
    sleep 0.5
    if [ "$(left)" -lt 1 ]; then echo "not all runs are done: run it again" >&2; fi
    # Said only of a sweep that was trained in one go.
    grep '^the runs were predicted' "$OUT/sweep.log" || true
    exit $status
    ;;
*)
    sed -n '2,17s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac

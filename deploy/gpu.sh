#!/usr/bin/env bash
# What a GPU shows of isoloss, in three parts: gpu.sh check | table | sweep
#
#   check   the cuda engine held to the CPU engine: gradients, 300 losses, same bits twice, resumed runs, checkpoints
#   table   tokens a second and shares of the peak, beside a PyTorch script where there is one
#   sweep   the 32 runs of sweeps/gpu.toml on a text, their law and report; last, what they were predicted to take and took
#
# It builds nothing. Every part ends within 9 minutes; started again, it goes on where it stopped. Results lie in $OUT.
#
#   ISOLOSS  the binary                                     [./isoloss]
#   RIVAL    torch_gpt.py, a PyTorch trainer of the same shapes; without it the table has one side  [./torch_gpt.py]
#   TEXT     the text of the sweep                          [./text.txt]
#   SWEEP    the sweep file                                 [./gpu.toml]
#   OUT      where results go                               [./gpu-out]
set -euo pipefail
ISOLOSS=${ISOLOSS:-./isoloss} RIVAL=${RIVAL:-./torch_gpt.py} TEXT=${TEXT:-./text.txt} SWEEP=${SWEEP:-./gpu.toml} OUT=${OUT:-./gpu-out}
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

bench() { "$ISOLOSS" bench --engine cuda --precision bf16 --shape "$1" --seconds 4 --json; }

# Four at once on one GPU, for shapes that leave most of it idle.
together() {
    local run
    for run in 1 2 3 4; do bench "$1" >"$OUT/together-$1.$run" & done
    wait
    cat "$OUT/together-$1".[1-4]
}

table() {
    local shapes="1M 5M 10M 50M 160M 350M moe-50M" shape batch mode
    export -f bench together
    export ISOLOSS OUT
    for shape in $shapes; do keep "$OUT/ours-$shape.json" bash -c 'bench "$0"' "$shape"; done
    for shape in 1M 5M 10M; do keep "$OUT/packed-$shape.json" bash -c 'together "$0"' "$shape"; done
    if [ -f "$RIVAL" ]; then
        for mode in default reduce-overhead; do
            for batch in 256 64; do
                for shape in $shapes; do
                    local moe=()
                    if [ "$shape" = moe-50M ]; then moe=(--moe grouped); fi
                    keep "$OUT/rival-$shape-$mode-$batch.txt" python3 "$RIVAL" --device cuda --cfg "${shape#moe-}" "${moe[@]}" \
                        --compile 1 --amp 1 --sync 10 --secs 4 --mode "$mode" --B "$batch"
                done
            done
        done
    fi
    printf '%-8s %12s %7s %12s %12s %7s\n' shape tokens/s of-peak packed rival times
    for shape in $shapes; do row "$shape"; done
    if compgen -G "$OUT/*.failed" >/dev/null; then echo "failed, with their last words in $OUT:" "$(cd "$OUT" && echo *.failed)"; fi
    if [ "$LATER" -gt 0 ]; then echo "$LATER measurements are left: run it again"; fi
}

# field NAME FILE...: the sum of a number over the files' JSON.
field() {
    local name=$1
    shift
    { cat "$@" 2>/dev/null || true; } | { grep -o "\"$name\": *[0-9.eE+-]*" || true; } | awk -F': *' '{ sum += $2 } END { if (NR) printf "%.6g", sum }'
}

row() {
    local ours share packed rival
    ours=$(field tokens_per_second "$OUT/ours-$1.json")
    share=$(field peak_share "$OUT/ours-$1.json")
    packed=$(field tokens_per_second "$OUT/packed-$1.json")
    rival=$({ cat "$OUT/rival-$1-"*.txt 2>/dev/null || true; } | grep -o 'med_tok/s=[0-9]*' | cut -d= -f2 | sort -n | tail -1 || true)
    awk -v name="$1" -v ours="$ours" -v share="$share" -v packed="$packed" -v rival="$rival" 'BEGIN {
        best = (packed + 0 > ours + 0) ? packed + 0 : ours + 0
        printf "%-8s %12s %7s %12s %12s %7s\n", name, (ours > 0) ? sprintf("%.0f", ours) : "-",
            (share > 0) ? sprintf("%.1f%%", 100 * share) : "-", (packed > 0) ? sprintf("%.0f", packed) : "-",
            (rival > 0) ? rival : "-", (rival > 0 && best > 0) ? sprintf("%.2f", best / rival) : "-" }'
}

LATER=0
case "${1:-}" in
check)
    timeout "$(left)" "$ISOLOSS" doctor || true
    timeout "$(left)" "$ISOLOSS" gpu-check
    ;;
table)
    "$ISOLOSS" doctor | grep -E ' (gpu|cuda) ' || true
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
    sed -n '2,15s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac

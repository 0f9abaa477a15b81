#!/bin/sh
# A control program of MPS that only looks like NVIDIA's; beside it lies what it did.
home=$(dirname "$0")
pid=$CUDA_MPS_PIPE_DIRECTORY/nvidia-cuda-mps-control.pid
if [ "$1" = -f ]; then
    setsid sleep 600 &
    echo $! >>"$home/pids"
    echo $$ >>"$home/pids"
    echo "$CUDA_VISIBLE_DEVICES in $CUDA_MPS_PIPE_DIRECTORY logs $CUDA_MPS_LOG_DIRECTORY" >>"$home/daemons"
    echo $$ >"$pid"
    while [ "$(cat "$pid" 2>/dev/null)" = $$ ]; do sleep 0.05; done
    exit 0
fi
read -r command
if ! kill -0 "$(cat "$pid" 2>/dev/null)" 2>/dev/null; then
    echo "Cannot find MPS control daemon process" >&2
    exit 1
fi
case $command in
get_server_list) echo 77 ;;
quit)
    # Not where its folder just went.
    echo obeyed >>"$home/daemons"
    rm "$pid"
    ;;
esac

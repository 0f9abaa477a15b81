// The call that is to fail: ISOLOSS_STANDIN_FAIL=cuGraphLaunch:3:719 lets the fourth call of that function end with that
// code, once. Every library counts the calls of its own functions.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>

struct Failing {
    std::mutex one;
    std::string function;
    unsigned long after = 0;
    int with = 0;

    Failing() {
        const char *text = getenv("ISOLOSS_STANDIN_FAIL");
        char name[64] = "";
        if (text && sscanf(text, "%63[^:]:%lu:%d", name, &after, &with) != 3) {
            fprintf(stderr, "stand-in: ISOLOSS_STANDIN_FAIL is FUNCTION:CALLS:CODE, not %s\n", text);
            exit(1);
        }
        function = name;
    }
};

// The code with which this call of the function is to end; 0 where it is to go on.
inline int planted(const char *function) {
    static Failing *failing = new Failing();
    std::unique_lock<std::mutex> lock(failing->one);
    if (failing->function != function || failing->after-- > 0) {
        return 0;
    }
    failing->function.clear();
    return failing->with;
}

// What every call of the libraries above the driver begins with.
#define PLANTED(Status)                                                                                                \
    if (int code = planted(__func__)) {                                                                                \
        return Status(code);                                                                                           \
    }

// A kernel source to a shared library of the emulated machine, by the host's C++ compiler.
#pragma once

#include <cstdlib>
#include <fcntl.h>
#include <fstream>
#include <sstream>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

inline std::string contents(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

// The exit code of a command whose words on stderr go to `log`.
inline int run(const std::vector<std::string> &words, const std::string &log) {
    std::vector<char *> arguments;
    for (const std::string &word : words) {
        arguments.push_back(const_cast<char *>(word.c_str()));
    }
    arguments.push_back(nullptr);
    pid_t child = fork();
    if (child == 0) {
        int to = open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(to, 2);
        // The loader's path names stand-ins that are no business of the compiler.
        unsetenv("LD_LIBRARY_PATH");
        execvp(arguments[0], arguments.data());
        _exit(127);
    }
    int status = -1;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// The folder of the emulated machine's sources and of these, when this was built.
#ifndef STANDIN_SOURCES
#error "build.sh says where the sources are"
#endif

inline bool compile(const std::string &text, const std::vector<std::string> &defines, int architecture, std::string &image,
                    std::string &log) {
    char folder[] = "/tmp/standin-XXXXXX";
    if (!mkdtemp(folder)) {
        log = "no temporary folder";
        return false;
    }
    std::string base = folder, source = base + "/program.cpp", made = base + "/program.so", said = base + "/log";
    std::string sources = STANDIN_SOURCES;
    std::ofstream(source) << "#define STANDIN_ARCHITECTURE " << architecture << "\n#include \"" << sources
                          << "/../src/emulated/machine.hpp\"\n#include \"" << sources
                          << "/../src/emulated/builtins.hpp\"\n#include \"" << sources << "/kernels.hpp\"\n"
                          << text;
    std::vector<std::string> words = {"c++", "-std=c++17", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-w"};
    for (const std::string &define : defines) {
        words.push_back("-D" + define);
    }
    words.insert(words.end(), {"-o", made, source});
    int code = run(words, said);
    log = contents(said);
    image = contents(made);
    for (const std::string &file : {source, made, said}) {
        unlink(file.c_str());
    }
    rmdir(folder);
    return code == 0 && !image.empty();
}

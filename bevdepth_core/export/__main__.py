from bevdepth_core.export.command_line import main

if __name__ == '__main__':
    main()

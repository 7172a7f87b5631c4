"""A parcel locker: codes, compartments, and the truth about doors.

workflow      what happens, decided: codes, couriers, those in charge
turn          one decision in the making, and the state it is about
doors         what one door's sensors say, and how far an opening has come
openings      from the intent to open a door to what became of it
pickups       which code opens which door, and what a wrong one costs
service       the fleet, a technician, the command line
many          many doors, one after the other, while a technician is there
rounds        which those are, and what has come of each
inspection    what would be wrong if somebody came now
trials        which way round each door's bit is meant
grants        what a code is worth; the guard against guessing
governor      when the next solenoid may be pulsed
compartments  what a locker is made of, and where a parcel goes
events        what happens at a locker, beside what happens everywhere
codes         from what was scanned or typed to a grant; knows keys
office        from a deposit to the grant and receipt for it; knows keys
desk          between the decider and all this
caretaker     what the command line asks and has done
looking       lock boards, asked for their bits at this moment
config        the table of the config file

The first fourteen are pure.
"""
